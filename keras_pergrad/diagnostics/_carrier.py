"""How the numbers of measured steps are laid out in rows, for one replica, and read again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_pergrad.diagnostics._primitives import LENGTHS, OF_SAMPLES, OF_STEP
from keras_pergrad.diagnostics._room import Room
from keras_pergrad.diagnostics._step import MeasuredStep
from keras_pergrad.errors import PerGradError


@dataclass(frozen=True)
class Layout:
    """Which primitives there are, of how many variables.

    Attributes:
        wanted: the names of primitives.
        variables: how many.
    """

    wanted: frozenset[str]
    variables: int

    @property
    def of_samples(self) -> dict[str, int]:
        """Primitive → columns, in their order."""
        return {name: self.variables for name in OF_SAMPLES if name in self.wanted}

    @property
    def of_step(self) -> dict[str, int]:
        """Primitive → numbers of a step, in their order."""
        names = [name for name in OF_STEP if name in self.wanted]
        return {name: LENGTHS.get(name, self.variables) for name in names}


class Carrier:
    """The variables of one replica.

    Args:
        layout: of what is carried.
        fixed: whether shapes must not change, as under XLA.

    Attributes:
        turn: the number of the next step.
    """

    def __init__(self, layout: Layout, *, fixed: bool):
        self._layout = layout
        self.turn = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._ids = Room(1, tf.int64, fixed=fixed)
        self._samples = Room(2 + sum(layout.of_samples.values()), tf.float64, fixed=fixed)
        self._steps = Room(4 + sum(layout.of_step.values()), tf.float64, fixed=fixed)

    def add(
        self,
        head: tuple[tf.Tensor, tf.Tensor, tf.Tensor],
        ids: tf.Tensor,
        columns: list[tf.Tensor],
        of_step: dict[str, tf.Tensor],
    ) -> None:
        """Adds a step.

        Args:
            head: its learning rate, its number of samples, and whether contributions exist.
            ids: `[B]`.
            columns: losses `[B, 1]`, weights `[B, 1]`, and the primitives of samples.
            of_step: the others.
        """
        front = tf.stack([tf.cast(each, tf.float64) for each in (self.turn, *head)])
        self._steps.add(tf.concat([front, *of_step.values()], axis=0)[None])
        self._samples.add(tf.concat(columns, axis=1))
        self._ids.add(ids[:, None])

    def take(self) -> list[MeasuredStep]:
        """The steps since the last time.

        Raises:
            PerGradError: there was no room for all of their samples.
        """
        steps, _ = self._steps.take()
        rows, count = self._samples.take()
        ids, _ = self._ids.take()
        if count > len(rows):
            raise PerGradError(
                f"Under XLA there is room for {len(rows)} samples between two looks of the host. "
                "Use a smaller `steps_per_execution` or batch, a larger `every`, or "
                f"`jit_compile=False`. Received: {count} samples."
            )
        parts, start = [], 0
        for numbers in steps:
            stop = start + int(numbers[2])
            parts.append(self._part(numbers, ids[start:stop, 0], rows[start:stop]))
            start = stop
        return parts

    def _part(self, numbers: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> MeasuredStep:
        head = int(numbers[0]), float(numbers[1]), bool(numbers[3])
        samples = _cut(rows[:, 2:], self._layout.of_samples)
        return MeasuredStep(
            *head, ids, rows[:, 0], rows[:, 1], samples, _cut(numbers[4:], self._layout.of_step)
        )


def _cut(numbers: np.ndarray, lengths: dict[str, int]) -> dict[str, np.ndarray]:
    """Columns by their names."""
    found, start = {}, 0
    for name, length in lengths.items():
        found[name] = numbers[..., start : start + length]
        start += length
    return found
