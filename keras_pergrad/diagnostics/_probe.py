"""What measures a training step where it runs, and brings it to the host."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.diagnostics._carrier import Carrier, Layout
from keras_pergrad.diagnostics._groups import Groups
from keras_pergrad.diagnostics._primitives import (
    ALIGNMENTS,
    SQUARED_NORMS,
    of_samples,
    of_step,
)
from keras_pergrad.diagnostics._replicas import joined_parts, mean_of_replicas
from keras_pergrad.diagnostics._step import MeasuredStep
from keras_pergrad.diagnostics._unweighted import Unweighted, why_weights_stay
from keras_pergrad.engines import (
    DEFAULT_MEMORY_BUDGET,
    Engine,
    Separation,
    get_engine,
    sample_gradients,
    unique_paths,
)
from keras_pergrad.gradients import Blocks, SampleGradients
from keras_pergrad.rows import fingerprints
from keras_pergrad.runs import Run, trained_variables

FEW = 8  # samples whose losses are run for, where Keras cannot tell those of all


class Probe:
    """Measures each `every`-th training step of a model, and touches nothing of it.

    Args:
        wanted: the names of primitives.
        every: how many steps from one measured to the next.
        engine: whose sample gradients.
        memory_budget: bytes that one chunk of samples may need.
        kinds: of groups beside the model, `"layer"` or `"variable"`.
        unweighted: whether sample weights are undone.

    Attributes:
        groups: of the weights, once `prepare` knows them.
        paths: of the weights that are measured, once `prepare` knows them.
        parameters: how many numbers each has.
        weights_stay: why sample weights could not be undone, or empty.
    """

    def __init__(
        self,
        wanted: frozenset[str],
        every: int = 1,
        engine: str | Engine = "auto",
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
        *,
        kinds: Sequence[str] = ("layer",),
        unweighted: bool = False,
    ):
        self.unweighted = unweighted
        self.wanted, self.every = wanted, every
        self.engine, self.memory_budget = get_engine(engine), memory_budget
        self.paths: list[str] = []
        self.groups, self._kinds = Groups.of([], kinds), kinds
        self.parameters = np.zeros(0)
        self._carriers: list[Carrier] = []
        self._reference: list[tf.Variable] = []
        self.weights_stay = ""
        self._start, self._divided_by = 0, 1

    # --- where the model runs ---

    def measure(self, run: Run, ids: tf.Tensor | None, rate: tf.Tensor) -> None:
        """Measures a training step of one replica, if it is due; after its update.

        Args:
            run: the step's run.
            ids: of its rows, `[B]`; None for fingerprints.
            rate: the learning rate of its update.
        """
        carrier = self._carriers[_keras.replica_id()]
        several = len(self._carriers) > 1
        # Keras divides what it reduces by the number of replicas, and what the user reduces not.
        self._divided_by = len(self._carriers) if run.recording.reduced else 1
        found = self._gradients(run) if several else None
        whole = None if found is None else self._seen(found[0], run)
        mean = None if whole is None else mean_of_replicas(whole)
        applied = mean_of_replicas(found[0]) if found and isinstance(whole, Unweighted) else None

        def keep() -> None:
            g, known = self._gradients(run) if found is None else found
            seen, weights = self._seen(g, run), _weights(run)
            samples = of_samples(seen, mean, self.wanted, reference=self._reference)
            losses, real = _losses(run, samples), None
            if isinstance(seen, Unweighted):
                losses, real = losses / weights, applied or g.means()  # of weight 0, NaN
            columns = [losses, weights, *samples.values()]
            rows = fingerprints(run.batch.x) if ids is None else ids
            head = rate, tf.convert_to_tensor(run.size), known
            of_all = of_step(
                seen,
                mean,
                self.wanted,
                samples,
                run=run,
                applied=real,
                groups=self.groups,
                budget=self.memory_budget,
            )
            carrier.add(head, rows, columns, of_all)

        due = tf.equal(carrier.turn % self.every, 0) & tf.greater(run.size, 0)
        _keras.apart_if(due, keep, optimized=True)
        carrier.turn.assign_add(1)

    def _gradients(self, run: Run) -> tuple[SampleGradients, tf.Tensor]:
        """The samples' contributions, and whether they exist."""
        known = tf.constant(True)

        def note(separation: Separation) -> Blocks:
            nonlocal known
            known = separation.known
            return separation.blocks

        g = sample_gradients(run.contributions(), self.engine, self.memory_budget, refuse=note)
        return g, known

    def _seen(self, g: SampleGradients, run: Run) -> SampleGradients | Unweighted:
        """The gradients that numbers are made of."""
        if not self.unweighted or run.batch.sample_weight is None:
            return g
        self.weights_stay = why_weights_stay(run, interacts=g.blocks.interacts)
        return g if self.weights_stay else Unweighted(g, _weights(run)[:, 0])

    # --- on the host ---

    def prepare(self, model: keras.Model) -> None:
        """Makes room for what will be measured of a built model, outside of its strategy."""
        if self._carriers:
            return
        variables = trained_variables(model)
        self.paths = unique_paths(variables)
        self.parameters = np.array([np.prod(v.shape) for v in variables])
        self.groups = Groups.of(self.paths, self._kinds)
        layout = Layout(self.wanted, len(variables), len(self.groups.names))
        replicas = model.distribute_strategy
        steps = -(-model.steps_per_execution // self.every)
        with tf.init_scope():
            for _ in range(replicas.num_replicas_in_sync):
                fixed = bool(model.jit_compile)
                self._carriers.append(Carrier(layout, fixed=fixed, steps=steps))
            if ALIGNMENTS in self.wanted:
                unknown = [tf.fill(v.shape, tf.cast(float("nan"), v.dtype)) for v in variables]
                self._reference = [tf.Variable(each, trainable=False) for each in unknown]
            self.start_at(self._start)

    def refer_to(self, gradient: Sequence[np.ndarray]) -> None:
        """Takes a gradient, one array a variable, for what samples are aligned with from now on."""
        for variable, value in zip(self._reference, gradient, strict=True):
            variable.assign(tf.cast(value, variable.dtype))

    def start_at(self, step: int) -> None:
        """Counts steps from `step` on; also those of a model that is not built yet."""
        self._start = step
        for carrier in self._carriers:
            carrier.turn.assign(step)

    def take(self) -> list[MeasuredStep]:
        """What was measured since the last time, of all replicas, in the order of the steps."""
        parts: dict[int, list[MeasuredStep]] = {}
        for carrier in self._carriers:
            for part in carrier.take():
                parts.setdefault(part.step, []).append(part)
        return [self._joined(parts[step]) for step in sorted(parts)]

    @property
    def lost_beyond(self) -> int | None:
        """How many samples there was room for, if that was too few for a step; else None."""
        return max((each.samples for each in self._carriers if each.lost), default=None)

    def _joined(self, parts: list[MeasuredStep]) -> MeasuredStep:
        """The parts of one step, in units of the samples' own losses."""
        joined = joined_parts(parts, several=len(self._carriers) > 1)
        return joined.times(self._divided_by) if self._divided_by > 1 else joined


def _losses(run: Run, samples: dict[str, tf.Tensor]) -> tf.Tensor:
    """Of all samples or, where that takes a run of each, of a few with the largest gradients."""
    losses = run.losses()
    if losses is None:
        size = tf.convert_to_tensor(run.size)
        norms = tf.reduce_sum(samples[SQUARED_NORMS], axis=1)
        order = tf.argsort(norms, direction="DESCENDING")
        few = order[: tf.minimum(size, FEW)]
        nowhere = tf.fill([size], tf.constant(float("nan"), tf.float64))
        losses = tf.tensor_scatter_nd_update(nowhere, few[:, None], run.own_losses(few))
    return losses[:, None]


def _weights(run: Run) -> tf.Tensor:
    """Sample weights `[B, 1]`; ones where there are none, or not one a sample."""
    weight = run.batch.sample_weight
    ones = tf.ones([tf.convert_to_tensor(run.size), 1], tf.float64)
    if not isinstance(weight, tf.Tensor) or weight.shape[1:].num_elements() != 1:
        return ones
    return tf.cast(tf.reshape(weight, [-1, 1]), tf.float64)
