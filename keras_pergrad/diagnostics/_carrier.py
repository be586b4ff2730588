"""How the numbers of measured steps are laid out in a room, for one replica, and read again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_pergrad.diagnostics._gram import OF_GRAM
from keras_pergrad.diagnostics._primitives import GRAM, LOSSES, OF_SAMPLES, OF_STEP
from keras_pergrad.diagnostics._room import Room
from keras_pergrad.diagnostics._step import MeasuredStep

_HEAD = 4  # step, learning rate, number of samples, whether contributions exist
_OF_SAMPLE = 3  # id, loss, weight
_SAMPLES, _STEPS = 4096, 512  # between two looks of the host, under XLA, at least
_SAMPLES_EACH = 512  # of a step, where many come between two looks


@dataclass(frozen=True)
class Layout:
    """Which primitives there are, of how many variables.

    Attributes:
        wanted: the names of primitives.
        variables: how many.
        groups: how many, of variables.
    """

    wanted: frozenset[str]
    variables: int
    groups: int

    @property
    def of_samples(self) -> dict[str, int]:
        """Primitive → columns, in their order."""
        return {name: self.variables for name in OF_SAMPLES if name in self.wanted}

    @property
    def of_step(self) -> dict[str, int]:
        """Primitive → numbers of a step, in their order."""
        names = [name for name in OF_STEP if name in self.wanted]
        lengths = {LOSSES: 2, GRAM: OF_GRAM * self.groups + 2}
        return {name: lengths.get(name, self.variables) for name in names}

    @property
    def step_numbers(self) -> int:
        """How many a step has beside its samples'."""
        return _HEAD + sum(self.of_step.values())

    @property
    def sample_numbers(self) -> int:
        """How many a sample has."""
        return _OF_SAMPLE + sum(self.of_samples.values())


class Carrier:
    """The room of one replica: a step's numbers, its samples' ids, then theirs by columns.

    All in one, as bits, so that a look of the host is one reading.

    Args:
        layout: of what is carried.
        fixed: whether shapes must not change, as under XLA.
        steps: how many may be measured between two looks.

    Attributes:
        turn: the number of the next step.
        lost: whether there was no room for a step.
        samples: how many there is room for, about.
    """

    def __init__(self, layout: Layout, *, fixed: bool, steps: int = 1):
        self._layout = layout
        self.turn = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.lost = False
        self.samples = max(_SAMPLES, _SAMPLES_EACH * steps)
        room = self.samples * layout.sample_numbers + max(_STEPS, steps) * layout.step_numbers
        self._room = Room(room if fixed else None)

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
        step = tf.concat([front, *of_step.values()], axis=0)
        samples = tf.reshape(tf.concat(columns, axis=1), [-1])
        parts = [tf.bitcast(step, tf.int64), ids, tf.bitcast(samples, tf.int64)]
        self._room.add(tf.concat(parts, axis=0))

    def take(self) -> list[MeasuredStep]:
        """The steps since the last time; under XLA, those that there was room for."""
        numbers, count = self._room.take()
        self.lost |= count > len(numbers)
        parts, start = [], 0
        while start + _HEAD <= len(numbers):
            size = int(numbers[start + 2 : start + 3].view(np.float64)[0])
            end = start + self._layout.step_numbers + size * self._layout.sample_numbers
            if end > len(numbers):
                break
            parts.append(self._part(numbers[start:end]))
            start = end
        return parts

    def _part(self, numbers: np.ndarray) -> MeasuredStep:
        """One step."""
        step = numbers[: self._layout.step_numbers].view(np.float64)
        turn, rate, size, known = step[:_HEAD].tolist()
        ids, samples = np.split(numbers[len(step) :], [int(size)])
        columns = self._layout.sample_numbers - 1
        rows = samples.view(np.float64).reshape(-1, columns)
        return MeasuredStep(
            int(turn),
            rate,
            bool(known),
            ids,
            rows[:, 0],
            rows[:, 1],
            _cut(rows[:, 2:], self._layout.of_samples),
            _cut(step[_HEAD:], self._layout.of_step),
        )


def _cut(numbers: np.ndarray, lengths: dict[str, int]) -> dict[str, np.ndarray]:
    """Columns by their names."""
    found, start = {}, 0
    for name, length in lengths.items():
        found[name] = numbers[..., start : start + length]
        start += length
    return found
