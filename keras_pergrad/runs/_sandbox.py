"""A scope in which a model can run without leaving a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf


class Sandbox(keras.StatelessScope):
    """Runs a model on given values of its variables, and keeps every write to itself.

    Reads answer the values given; writes (moving statistics, seeds, metrics, counters) stay here.
    As with a real variable, no gradient flows through a write. A write to a trainable weight, which
    `SpectralNormalization` does in its forward pass, starts a new version of that weight, and the
    weight's gradient is the sum over the versions that were read.

    Attributes:
        read: the ids of the variables that the run has read.
        untracked: paths of trainable variables that it has read and that the model does not know.
        weights_read: how often it has read a weight.
    """

    is_sandbox = True

    def __init__(
        self,
        state: Sequence[tuple[keras.Variable, tf.Tensor]],
        weights: Sequence[keras.Variable],
        tape: tf.GradientTape | None = None,
    ):
        super().__init__(collect_losses=True)
        self.state_mapping = {id(variable): value for variable, value in state}
        self._weights = {id(weight) for weight in weights}
        self._tape = tape
        self._versions = {id(w): [self.state_mapping[id(w)]] for w in weights}
        self.read: set[int] = set()
        self.weights_read = 0
        self.untracked: set[str] = set()
        if tape is not None:
            tape.watch([version for each in self._versions.values() for version in each])

    def get_current_value(self, variable):
        self.read.add(id(variable))
        self.weights_read += id(variable) in self._weights
        if variable.trainable and id(variable) not in self.state_mapping:
            self.untracked.add(variable.path)
        return super().get_current_value(variable)

    def add_update(self, update):
        variable, value = update
        if (given := self.state_mapping.get(id(variable))) is not None:
            value = tf.cast(value, given.dtype)
        value = tf.stop_gradient(value)
        if id(variable) in self._weights:
            self._versions[id(variable)].append(value)
            if self._tape is not None:
                self._tape.watch(value)
        super().add_update((variable, value))

    @contextlib.contextmanager
    def forgetting(self, state: dict[int, tf.Tensor] | None = None) -> Iterator[None]:
        """What is written inside is forgotten after it.

        Args:
            state: values to begin with in the place of some of the present ones, by variables' ids.
        """
        before = self.state_mapping
        self.state_mapping = {**before, **(state or {})}
        try:
            yield
        finally:
            self.state_mapping = before

    def versions(self, weights: Sequence[keras.Variable]) -> list[list[tf.Tensor]]:
        """The values that each of `weights` had in this run, the first one first."""
        return [self._versions[id(weight)] for weight in weights]
