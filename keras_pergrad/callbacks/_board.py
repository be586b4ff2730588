"""What a monitor writes for TensorBoard: from the host, a few panels, not one for each layer."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from keras_pergrad.diagnostics import Condensed, MeasuredStep, OutlierRow
from keras_pergrad.errors import MissingExtraError, PerGradWarning

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PREFIX = "gradients"
_COLUMNS = ("id", "epoch", "step", "norm", "z", "loss", "layer", "contribution", "seen")


class Board:
    """Writes events into a directory; one that cannot be written is said once.

    Args:
        log_dir: the directory; None writes nothing.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, log_dir: str | os.PathLike | None):
        self._log_dir = None if log_dir is None else os.fspath(log_dir)
        self._writer: Any = None
        if self._log_dir is not None:
            _tensorboard()

    def step(self, step: MeasuredStep, condensed: Condensed, scalars: Sequence[str]) -> None:
        """Scalars and the histogram of `log₁₀ ‖g_i‖` of a measured step."""

        def write(writer: Any) -> None:
            plugins = _tensorboard()
            for name, value in condensed.values(scalars).items():
                if np.isfinite(value):
                    summary = plugins.scalar.scalar_pb(f"{_PREFIX}/{name}", value)
                    _add(writer, plugins, summary, condensed.step)
            squares = step.samples["squared_norms"].sum(axis=1)
            logs = np.log10(squares[step.finite & (squares > 0)]) / 2
            summary = plugins.histogram.histogram_pb(f"{_PREFIX}/log10_norms", logs)
            _add(writer, plugins, summary, condensed.step)

        self._try(write)

    def epoch(
        self, step: int, rows: Sequence[OutlierRow], dashboard: Callable[[], Figure] | None
    ) -> None:
        """The outlier table as text, and the dashboard, if matplotlib is there to draw it."""

        def write(writer: Any) -> None:
            plugins = _tensorboard()
            summary = plugins.text.text_pb(f"{_PREFIX}/outliers", markdown(rows))
            _add(writer, plugins, summary, step)
            if dashboard is not None and importlib.util.find_spec("matplotlib") is not None:
                picture = plugins.image(f"{_PREFIX}/dashboard", _png(dashboard()))
                _add(writer, plugins, picture, step)
            writer.flush()

        self._try(write)

    def close(self) -> None:
        """Ends the file; what is written later begins another."""
        if self._writer is not None:
            self._try(lambda writer: writer.close())
            self._writer = None

    def _try(self, write: Callable[[Any], None]) -> None:
        if self._log_dir is None:
            return
        try:
            if self._writer is None:
                self._writer = _tensorboard().EventFileWriter(self._log_dir)
            write(self._writer)
        except (OSError, tf.errors.OpError) as error:
            warnings.warn(
                f"TensorBoard's events cannot be written, and training goes on without: {error}. "
                f"Received: log_dir={self._log_dir!r}.",
                PerGradWarning,
                stacklevel=2,
            )
            self._log_dir = None


def markdown(rows: Sequence[OutlierRow]) -> str:
    """An outlier table as TensorBoard shows text."""
    lines = [" | ".join(_COLUMNS), " | ".join("---" for _ in _COLUMNS)]
    for row in rows:
        cells = (getattr(row, column) for column in _COLUMNS)
        lines.append(" | ".join(f"{c:.4g}" if isinstance(c, float) else str(c) for c in cells))
    return "\n".join(lines)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=80)
    return content.getvalue()


def _add(writer: Any, plugins: Any, summary: Any, step: int) -> None:
    event = plugins.Event(step=step, summary=_converted(summary, plugins))
    event.wall_time = plugins.now()
    writer.add_event(event)


def _converted(summary: Any, plugins: Any) -> Any:
    """The summary as the writer's own protocol buffer class."""
    return plugins.Summary.FromString(summary.SerializeToString())


class _Plugins:
    """What is used of TensorBoard, imported where it is."""

    def __init__(self) -> None:
        import time

        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.histogram import summary as histogram
        from tensorboard.plugins.image import metadata
        from tensorboard.plugins.scalar import summary as scalar
        from tensorboard.plugins.text import summary as text
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        from tensorboard.util.tensor_util import make_tensor_proto

        self.Event, self.Summary, self.EventFileWriter = Event, Summary, EventFileWriter
        self.histogram, self.scalar, self.text = histogram, scalar, text
        self.now, self._metadata, self._tensor = time.time, metadata, make_tensor_proto

    def image(self, tag: str, png: bytes) -> Any:
        """A summary of one PNG, whose size is in bytes 16 to 24 of its header."""
        width, height = (str(int.from_bytes(png[k : k + 4], "big")).encode() for k in (16, 20))
        metadata = self._metadata.create_summary_metadata(display_name=None, description=None)
        tensor = self._tensor([width, height, png], dtype=np.object_)
        return self.Summary(value=[self.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])


@functools.cache
def _tensorboard() -> _Plugins:
    try:
        return _Plugins()
    except ImportError as error:
        raise MissingExtraError(
            "Writing for TensorBoard needs TensorBoard, which TensorFlow does not bring any more: "
            'pip install "keras_pergrad[tensorboard]". '
            f"Received: {type(error).__name__}: {error}."
        ) from error
