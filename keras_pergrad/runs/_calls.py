"""The calls of a model's layers in one run: who called whom, and each of them once more.

A layer that mixes samples is found by its behaviour: it is called again with the same noise and the
same state, on what it was called on but for some samples, and the others must not notice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import attributes_kept
from keras_pergrad.runs._replay import Replay
from keras_pergrad.runs._sample_by_sample import bears_samples, layers_held, of_sample

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


@dataclass
class Call:
    """One call of one layer.

    Attributes:
        layer: the layer.
        arguments: what it was called on, positional and by name.
        outputs: what it gave back.
        inner: the calls that it made, in their order.
        drawn: the numbers of the random draws before it and after it.
        training: what it was told, or the layer that called it.
    """

    layer: keras.Layer
    arguments: tuple[tuple, dict]
    outputs: Any = None
    inner: list[Call] = field(default_factory=list)
    drawn: tuple[int, int] = (0, 0)
    training: bool | None = None
    _state: dict[int, tf.Tensor] = field(default_factory=dict)

    def walk(self) -> Iterator[Call]:
        """This call after all that it made, in the order in which they ended."""
        for call in self.inner:
            yield from call.walk()
        yield self

    def outermost(self, layers: set[int]) -> Iterator[Call]:
        """Of it and all that it made, the calls of `layers`, by ids, that none of them made."""
        if id(self.layer) in layers:
            yield self
            return
        for inner in self.inner:
            yield from inner.outermost(layers)

    def again(self, run: Run, arguments: tuple, held: Iterable[keras.Layer] = ()) -> Any:
        """What it gives back for other arguments, with the same noise and state.

        Args:
            run: the run that it belongs to.
            arguments: in the place of its own.
            held: layers in which each sample meets the others as they were.
        """
        told = _parts.replay(run)
        hold = layers_held(run, self._made(held), told)
        return self._called(run, told, None, hold, arguments)

    def alone(self, run: Run, index: int, held: Iterable[keras.Layer] = ()) -> Any:
        """What it gives back for one sample of what it was called on, with its noise and the state.

        Args:
            run: the run that it belongs to.
            index: of the sample.
            held: layers in which the sample meets the others all the same, as they were.
        """
        told = _parts.replay(run)
        hold = layers_held(run, self._made(held), told, alone=index)
        arguments = of_sample(self.arguments, index, int(run.size))
        return self._called(run, told, tf.constant(index), hold, arguments)

    def _made(self, layers: Iterable[keras.Layer]) -> list[Call]:
        """The calls of `layers` that it made."""
        inside = {id(layer) for layer in layers}
        return [call for inner in self.inner for call in inner.outermost(inside)]

    def _called(
        self, run: Run, told: Replay, index: tf.Tensor | None, hold: Any, arguments: tuple
    ) -> Any:
        box, noise = _parts.sandbox(run), told.turned_to(index, self.drawn[0])
        state, outer = box.forgetting(self._state), _keras.within_call(self.training)
        with attributes_kept(run.model), box, state, told.of(index), noise, hold, outer:
            return self.layer(*arguments[0], **arguments[1])

    def bears_samples(self, size: int) -> bool:
        """Whether it is called on samples and gives back samples, as far as shapes tell."""
        return all(
            any(bears_samples(leaf, size) for leaf in keras.tree.flatten(each))
            for each in (self.arguments, self.outputs)
        )


def recorded_calls(run: Run) -> Call:
    """The forward pass, as the call of the model with all that it made. Eagerly.

    Calls inside a function that TensorFlow traces are left out: their tensors are gone with it.
    """
    told, open_calls = _parts.replay(run), [Call(run.model, ((), {}))]

    def record(layer: keras.Layer, call: Any, args: tuple, kwargs: dict) -> Any:
        if not tf.executing_eagerly():
            return call(*args, **kwargs)
        here = Call(layer, (args, kwargs), training=_keras.training_told())
        here._state = dict(_keras.sandbox().state_mapping)
        begin = told.drawn
        open_calls[-1].inner.append(here)
        open_calls.append(here)
        try:
            here.outputs = call(*args, **kwargs)
        finally:
            open_calls.pop()
        here.drawn = begin, told.drawn
        return here.outputs

    recording = _keras.calls_through(_keras.layers_of(run.model), record)
    with attributes_kept(run.model), _parts.sandbox(run), told.of(None), recording:
        _parts.forward(run, run.batch, unroll=False)
    return open_calls[0].inner[0]
