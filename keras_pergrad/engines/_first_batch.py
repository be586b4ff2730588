"""What the first batch of a graph has to add up to, known before the pass that is read."""

from __future__ import annotations

import tensorflow as tf

from keras_pergrad.engines._engine import Engine
from keras_pergrad.engines._remembered import Remembered
from keras_pergrad.gradients import projected, projected_zeros
from keras_pergrad.runs import Run

NOT_ASKED, ARE, ARE_NOT = -1, 1, 0


class FirstBatch:
    """The tape's gradient of the samples of a batch, until one was asked and has answered.

    It takes a pass of its own, in a branch that later batches do not enter. What comes out of the
    branch is small, the gradients times a few vectors, and the run's own pass waits for it: so the
    memory of the two is never needed at once.

    Args:
        run: the run, whose batch waits from now on.

    Attributes:
        asked: the answer, remembered from batch to batch.
        before: what it was before this batch.
    """

    def __init__(self, run: Run):
        self.asked = Remembered(NOT_ASKED)
        self.before = self.asked.read()

        def ask() -> list[tf.Tensor]:
            return [projected(each) for each in run.batch_gradient(of_samples=True)[1]]

        def pass_over() -> list[tf.Tensor]:
            return [projected_zeros(weight) for weight in run.weights]

        self._means: list[tf.Tensor] = tf.cond(tf.equal(self.before, NOT_ASKED), ask, pass_over)
        run.batch = run.batch.after(self._means)

    @classmethod
    def of(cls, run: Run, engine: Engine) -> FirstBatch | None:
        """Where shares are read off a pass of their own in a graph; else None."""
        shares = engine.definition == "share" and run.of == "contribution"
        if tf.executing_eagerly() or not shares or engine.looked_on(run):
            return None
        return cls(run)

    def sums(self, size: int | tf.Tensor) -> list[tf.Tensor]:
        """What `size` samples have to add up to, projected; of the batch that is asked alone."""
        return [mean * tf.cast(size, mean.dtype) for mean in self._means]

    def settle(self) -> None:
        """For a graph that does not ask after all."""
        self.asked.assign(tf.constant(ARE))
