"""The variables of one replica that carry its evidence to the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_pergrad.equivalence import Coupling, Evidence, tells

# How many numbers a refusal can speak of: the leaves of a batch. XLA wants variables of one shape.
_NUMBERS = 64


class Slot:
    """The worst step since the host looked last, and whether a step was refused.

    Args:
        variables: how many weights the model has.
    """

    def __init__(self, variables: int):
        self.turn = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.judged = tf.Variable(False, trainable=False)
        self._step = tf.Variable(-1, trainable=False, dtype=tf.int64)
        self._badness = tf.Variable(-1.0, trainable=False, dtype=tf.float64)
        self._table = tf.Variable(tf.zeros([2, variables, 5], tf.float64), trainable=False)
        self._coupling = tf.Variable(tf.zeros([5], tf.float64), trainable=False)
        self._counts = tf.Variable(tf.zeros([12], tf.int32), trainable=False)
        self._refusal = tf.Variable(0, trainable=False, dtype=tf.int32)
        self._numbers = tf.Variable(tf.zeros([_NUMBERS], tf.int32), trainable=False)

    def refuse(self, failed: tf.Tensor, number: int, numbers: tf.Tensor | None) -> None:
        """Notes refusal `number` and the numbers that it speaks of, if `failed`."""
        self._refusal.assign(tf.where(failed, number, self._refusal))
        if numbers is not None:
            numbers = tf.cast(numbers[:_NUMBERS], tf.int32)
            numbers = tf.pad(numbers, [[0, _NUMBERS - numbers.shape[0]]])
            self._numbers.assign(tf.where(failed, numbers, self._numbers))

    def take_refusal(self) -> tuple[int, np.ndarray]:
        """The number of the refusal since the last look, 0 for none, and its numbers."""
        number = int(self._refusal.numpy())
        if not number:
            return 0, np.zeros(0, np.int32)
        self._refusal.assign(0)
        return number, self._numbers.numpy()

    def is_worse(self, badness: tf.Tensor) -> tf.Tensor:
        """Whether no step since the last look was as bad, a scalar bool."""
        return badness > self._badness

    def keep(self, evidence: Evidence, badness: tf.Tensor) -> None:
        """Keeps the evidence if it is worse than what is kept."""
        worse = self.is_worse(badness)
        self.judged.assign(self.judged | (badness >= 0) & tells(evidence.table))
        for variable, value in self._packed(evidence, badness):
            variable.assign(tf.where(worse, value, variable))

    def _packed(self, evidence: Evidence, badness: tf.Tensor) -> list[tuple[tf.Variable, Any]]:
        counts = [evidence.size, evidence.non_finite, tf.cast(evidence.batch_finite, tf.int32)]
        counts.append(evidence.asked)
        return [
            (self._step, self.turn),
            (self._table, tf.stack([evidence.table, evidence.oracle])),
            (self._coupling, tf.stack(list(evidence.coupling))),
            (self._counts, tf.concat([tf.stack(counts), evidence.non_finite_indices], axis=0)),
            (self._badness, badness),
        ]

    def take(self) -> tuple[Evidence, int] | None:
        """The evidence and its step, once; None if there is none."""
        if self._badness.numpy() < 0:
            return None
        self._badness.assign(-1.0)
        table, counts = self._table.numpy(), self._counts.numpy()
        size, non_finite, batch_finite, asked, *indices = counts
        evidence = Evidence(
            table[0],
            table[1],
            asked,
            Coupling(*self._coupling.numpy()),
            size,
            non_finite,
            np.array(indices),
            np.bool_(batch_finite),
        )
        return evidence, int(self._step.numpy())
