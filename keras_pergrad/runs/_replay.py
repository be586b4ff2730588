"""Telling a run what the batch's run did."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import UnsupportedError
from keras_pergrad.runs._gamma import with_gamma_gradient
from keras_pergrad.runs._recording import Recording


class Replay:
    """Answers one run from a recording, each draw and each reduction in its turn.

    Args:
        recording: of the batch's run.
        size: the number of samples of the batch.
        shared_divisors: whether a sample's losses are divided by the batch's denominators (and
            multiplied by `size`), or by the sample's own.
        start: the number of draws that have been before.
    """

    def __init__(self, recording: Recording, size: Any, *, shared_divisors: bool, start: int = 0):
        self._recording = recording
        self._size = size
        self._shared_divisors = shared_divisors
        self._index: tf.Tensor | None = None
        self._draw = start
        self._reduction = 0

    @contextlib.contextmanager
    def of(self, index: tf.Tensor | None) -> Iterator[None]:
        """Replays sample `index`, run alone, inside; or the whole batch, where it is None."""
        self._index = index
        reduce = self.reduce if self._shared_divisors else None
        with _keras.intercept(draw=self.draw, reduce=reduce):
            yield

    @property
    def drawn(self) -> int:
        """How many of the draws have been answered."""
        return self._draw

    @contextlib.contextmanager
    def turned_to(self, index: tf.Tensor | None, drawn: int) -> Iterator[None]:
        """Inside, sample `index`, or the batch for None, and the draws from number `drawn` on."""
        before, self._index, self._draw = self._index, index, drawn
        try:
            yield
        finally:
            self._index = before

    def draw(self, asked: _keras.Draw) -> tf.Tensor:
        """The sample's part of the draw whose turn it is."""
        if self._draw >= len(self._recording.draws):
            raise _different_noise("more")
        if "minvals" in asked.arguments:
            raise UnsupportedError(
                "A parameterized truncated normal draw has a gradient in its parameters that a "
                "replayed draw would lose. Draw with keras.random.truncated_normal, and scale and "
                "shift the result. Received: a parameterized_truncated_normal.",
                causes=("randomness",),
            )
        value = self._recording.draws[self._draw]
        self._draw += 1
        value = self._row(_reachable(value), asked.shape)
        return with_gamma_gradient(value, asked.arguments)

    def _row(self, value: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
        """The sample's entry of the axis that has one a sample; other axes are as they are.

        Raises:
            UnsupportedError: samples and something else share an axis, in an unknown order.
        """
        if self._index is None:
            return value
        wanted = _keras.static_shape(shape)
        if value.shape.rank != len(wanted):
            raise _different_noise("differently shaped")
        for axis, part in enumerate(wanted):
            whole = value.shape[axis]
            if whole == part and part is not None:
                continue
            if part == 1:
                several = tf.shape(value)[axis] != 1
                index = tf.where(several, tf.convert_to_tensor(self._index), 0)
                value = tf.gather(value, index[None], axis=axis)
            elif axis == 0 or None not in (whole, part):
                raise _merged_noise(whole, part)
        return value

    def reduce(self, asked: _keras.Reduction) -> tf.Tensor:
        """A sample's reduced loss, `B / D` times its weighted sum with the batch's divisor `D`."""
        if self._index is None:  # the whole batch, as Keras reduces it
            self._reduction += 1
            return asked.by_keras()
        if self._reduction >= len(self._recording.divisors):
            raise UnsupportedError(
                "A sample alone reduces more losses than the batch did, or the batch's were "
                "reduced inside a tf.function. engine='jacobian' runs the batch as it is. "
                f"Received: {len(self._recording.divisors)} losses of the batch, and one more."
            )
        divisor = self._recording.divisors[self._reduction]
        self._reduction += 1
        if divisor is None:
            return asked.by_keras()
        kept = asked if asked.is_none else dataclasses.replace(asked, kind="sum")
        total = kept.by_keras()
        mean = tf.math.divide_no_nan(total * tf.cast(self._size, total.dtype), divisor)
        return mean if kept.kind == asked.kind else _keras.scale_for_replicas(mean)

    def expect_the_end(self) -> None:
        """Refuses a run that drew less than the batch did."""
        if self._draw < len(self._recording.draws):
            raise _different_noise("less")


def _reachable(value: tf.Tensor) -> tf.Tensor:
    """Refuses noise that was drawn inside a loop or a branch, where nothing outside can see it."""
    if tf.executing_eagerly() or not hasattr(value, "graph"):
        return value
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        if value.graph is graph:
            return value
        graph = getattr(graph, "outer_graph", None)
    raise UnsupportedError(
        "The model draws noise inside a loop, a branch or a compiled function, where it cannot be "
        "replayed sample by sample. Draw it before the loop, or set `unroll=True` on the recurrent "
        f"layer. Received: the draw {value.name!r}.",
        causes=("randomness",),
    )


def _merged_noise(whole: int | None, part: int | None) -> UnsupportedError:
    sizes = [size or "unknown many" for size in (whole, part)]
    return UnsupportedError(
        "The model draws noise with samples and positions merged into one axis, and which entries "
        "are a sample's cannot be known. Draw noise of shape [batch, ...], or use "
        "engine='jacobian', which runs the batch as it is. Received: an axis of "
        f"{sizes[0]} entries for the batch, and of {sizes[1]} for a sample alone.",
        causes=("randomness",),
    )


def _different_noise(how: str) -> UnsupportedError:
    return UnsupportedError(
        "A sample alone draws other noise than the batch did, so that its own draw cannot be "
        "told. Draw noise of shape [batch, ...] once, whatever the batch, and not inside a "
        "tf.function of the model's own. engine='jacobian' runs the batch as it is. "
        f"Received: {how} noise for a sample alone.",
        causes=("randomness",),
    )
