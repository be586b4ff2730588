"""`jacobian`: the derivatives of the batched run's own losses."""

from __future__ import annotations

from keras_pergrad.engines._engine import Engine
from keras_pergrad.engines._memory import plan_chunks
from keras_pergrad.gradients import Chunked
from keras_pergrad.runs import Run


class Jacobian(Engine):
    """Runs the whole batch, and takes the gradient of each sample's loss in it.

    Exact also where samples interact: under BatchNormalization the rows contain what a sample does
    to the others' statistics. The forward pass does not depend on the sample, so that vectorizing
    computes it once; only the backward passes are many.
    """

    name = "jacobian"
    definition = "jacobian"

    def blocks(self, run: Run, memory_budget: int) -> Chunked:
        return plan_chunks(run, lambda index: run.row(index, unroll=True), self.name, memory_budget)
