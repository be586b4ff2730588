"""`vectorized`: all samples of a chunk at once in `tf.vectorized_map`."""

from __future__ import annotations

from keras_pergrad.engines._alone import expect_samples_alone
from keras_pergrad.engines._engine import Engine
from keras_pergrad.engines._memory import plan_chunks
from keras_pergrad.gradients import Chunked
from keras_pergrad.runs import Run


class Vectorized(Engine):
    """Runs forward pass, loss and tape of one sample, vectorized over samples.

    Guarantees: equal to `loop` on every model in which a sample can be run alone, in TensorFlow's
    default configuration: noise is each row's own, sequences do not corrupt memory, recurrent
    layers are unrolled while tracing.
    """

    name = "vectorized"
    definition = "isolated"

    def blocks(self, run: Run, memory_budget: int) -> Chunked:
        expect_samples_alone(run, self.name)
        return plan_chunks(
            run, lambda index: run.sample(index, unroll=True), self.name, memory_budget
        )
