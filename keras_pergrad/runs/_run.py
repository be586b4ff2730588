"""One batch run through one model, and what any sample of it does by itself.

`Run` is what engines are given. It holds the values of all variables *before* the batch was run,
and the recording of the run, so that a part of it can be run again, any time, without a trace.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs._attributes import attributes_kept, rows_of_attributes, tensors_held
from keras_pergrad.runs._batch import Batch, leaves, map_leaves, take
from keras_pergrad.runs._observer import Observer
from keras_pergrad.runs._own import sum_of_own_losses
from keras_pergrad.runs._recording import Recording
from keras_pergrad.runs._recurrent import unroll_recurrent_layers
from keras_pergrad.runs._replay import Replay
from keras_pergrad.runs._row import RowGraph, row_of_term
from keras_pergrad.runs._sandbox import Sandbox
from keras_pergrad.runs._tape import (
    UNTRACKED,
    LossAndGradients,
    State,
    differentiate,
    differentiate_observed,
    summed,
)
from keras_pergrad.runs._terms import depending_on, overrides_compute_loss, owned


@dataclass(frozen=True)
class Outcome:
    """What a run of the whole batch gave: its predictions, and its loss without `batch_term`."""

    y_pred: Any
    loss: tf.Tensor


@dataclass(frozen=True)
class Traced:
    """A run that was traced and not run.

    Attributes:
        operations: in their order.
        weights: in it, in the order of the run's variables.
        data: what it was given as a batch.
        loss: its scalar.
        forward: how many of the operations are the forward pass.
        rewritten: the numbers of the variables that the forward pass assigns.
    """

    operations: Sequence[tf.Operation]
    weights: list[tf.Tensor]
    data: list[tf.Tensor]
    loss: tf.Tensor
    forward: int
    rewritten: set[int]


@dataclass
class Run:
    """A batch that was run.

    Attributes:
        model: the user's model.
        batch: what it was run on.
        variables: the weights that gradients are taken of, in `trainable_variables` order.
        state: the values of all variables before the run.
        recording: the run's noise and denominators.
        y_pred: the batch's predictions.
        terms: what the layers gave to `add_loss`, activity regularizers included.
        training: the `training` argument of the run.
        of: `"contribution"` or `"own"`, see `per_sample_gradients`.
        gradient_scale: a factor that losses are multiplied by before, and gradients divided by
            after the backward pass, so that float16 gradients neither over- nor underflow.
        unconnected: path → reason of the weights that no gradient reached; filled by tracing.
        remarks: what else tracing found that a person should know.
        in_chunks: from a number of samples to how they are cut into chunks, in words; None where
            they are not, or nothing is known of it.
        observer: who has seen the real run's own backward pass, or None.
    """

    model: keras.Model
    batch: Batch
    variables: list[keras.Variable]
    state: State
    recording: Recording
    y_pred: Any = None
    terms: list[tf.Tensor] = field(default_factory=list)
    training: bool = True
    of: str = "contribution"
    gradient_scale: tf.Tensor | None = None
    unconnected: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    in_chunks: Callable[[int], str | None] | None = None
    observer: Observer | None = None

    # --- what is known about it ---

    @property
    def size(self) -> int | tf.Tensor:
        """The number of samples."""
        return self.batch.size

    @cached_property
    def weights(self) -> list[tf.Tensor]:
        """The values of `variables` before the run."""
        return [self._values[id(variable)] for variable in self.variables]

    @property
    def loss_dtype(self) -> tf.DType:
        """What losses are reported in: Keras' `floatx`."""
        return tf.as_dtype(keras.config.floatx())

    @cached_property
    def compute_dtype(self) -> str:
        """The coarsest dtype that any layer computes in."""
        used = {layer.compute_dtype for layer in _keras.layers_of(self.model)}
        coarse_first = ("float16", "bfloat16", "float32", "float64")
        return next((dtype for dtype in coarse_first if dtype in used), "float32")

    @property
    def untracked(self) -> list[str]:
        """Paths of trainable weights that the run reads and nothing trains; filled by tracing."""
        return [path for path, reason in self.unconnected.items() if reason == UNTRACKED]

    @property
    def is_opaque(self) -> bool:
        """Whether the user's code reduces the loss over samples where Keras cannot be asked how."""
        terms = zip(self.terms, self.free_terms, strict=True)
        silent = len(self.recording.divisors) < max(0, len(_keras.loss_objects(self.model)) - 1)
        return (
            silent
            or overrides_compute_loss(self.model)
            or any(term.shape.rank == 0 for term, free in terms if not free)
            or any(divisor is None for divisor in self.recording.divisors)
        )

    @cached_property
    def free_terms(self) -> list[bool]:
        """Which of `terms` depend on no data, found by tracing one sample and following its index.

        Empty where no layer called `add_loss`.
        """
        if not self.terms:
            return []

        def terms_of(index: tf.Tensor) -> list[tf.Tensor]:
            with self._sandbox(), self._replay().of(index):
                return self._forward(self.batch.row(index), unroll=False)[1]

        index = tf.TensorSpec([], tf.int32)
        with attributes_kept(self.model):
            graph = _keras.compiled(terms_of).get_concrete_function(index).graph
        reached = depending_on(graph.inputs[0], graph)
        return [tensor.ref() not in reached for tensor in graph.outputs]

    @property
    def sums_own_losses(self) -> bool:
        """Whether Keras' losses can be made to reduce to the sum of the samples' own."""
        return self.of == "own" and not self.is_opaque

    def contributions(self) -> Run:
        """The same run, for contributions in place of the samples' own gradients."""
        return dataclasses.replace(self, of="contribution")

    # --- its samples ---

    def sample(self, index: tf.Tensor, *, unroll: bool) -> LossAndGradients:
        """The loss and the gradients of sample `index`, run alone as a batch of one.

        Returns:
            The loss, a scalar, and one dense gradient a variable, in the variable's shape.
        """
        free = self.free_terms

        def loss_of() -> tf.Tensor:
            replay, row = self._replay(), self.batch.row(index)
            with replay.of(index):
                y_pred, terms = self._forward(row, unroll)
                loss = self._loss(row, y_pred, owned(terms, free), alone=True)
            replay.expect_the_end()
            return loss

        return self._gradients(loss_of, self.gradient_scale)

    def row(self, index: tf.Tensor, *, unroll: bool) -> LossAndGradients:
        """The loss of sample `index` within the batched run, and its gradients: a Jacobian row."""
        free = self.free_terms

        def loss_of() -> tf.Tensor:
            replay = self._replay()
            one = functools.partial(take, indices=tf.reshape(index, [1]))
            before, graph = tensors_held(self.model), RowGraph(self.batch.x)
            with replay.of(None):
                y_pred, terms = self._forward(self.batch.given(graph.x), unroll)
            size = self.size if isinstance(self.size, int) else None
            graph.forward_ends(y_pred, size)
            rows_of_attributes(self.model, before, size, one)
            with replay.of(index):
                y_pred = map_leaves(lambda leaf: _keras.cut(leaf, one), y_pred)
                rows = [row_of_term(t, index, f) for t, f in zip(terms, free, strict=True)]
                graph.loss_begins()
                loss = self._loss(self.batch.row(index), y_pred, rows, alone=True)
            graph.expect_loss_of_rows(size)
            replay.expect_the_end()
            return loss

        return self._gradients(loss_of, self.gradient_scale)

    # --- the batch, once more ---

    def batch_gradient(self, *, of_samples: bool = False) -> LossAndGradients:
        """The batch's scalar and its gradient, with the run's noise.

        Args:
            of_samples: whether the terms that no sample owns are left out.
        """
        free = self.free_terms

        def loss_of() -> tf.Tensor:
            replay = self._replay()
            with replay.of(None):
                y_pred, terms = self._forward(self.batch, unroll=False)
                if of_samples:
                    loss = self._loss(self.batch, y_pred, owned(terms, free))
                else:
                    loss = self._loss(self.batch, y_pred, terms, penalties=self._penalties())
            replay.expect_the_end()
            return loss

        return self._gradients(loss_of, self._scale_of_the_batch())

    def observe(self, observer: Observer) -> None:
        """Runs the samples' part of the batch's scalar and differentiates it, for an observer.

        Where `sums_own_losses`, the scalar is the sum of the samples' own losses. Recurrent layers
        are unrolled. Has to be called while a graph is traced.
        """

        def loss_of() -> tf.Tensor:
            replay = self._replay()
            with replay.of(None), sum_of_own_losses(self.sums_own_losses):
                loss = self._samples_loss(self.batch)
            replay.expect_the_end()
            return loss

        differentiate_observed(
            loss_of,
            self.model,
            self.variables,
            self.state,
            self.gradient_scale if self.sums_own_losses else self._scale_of_the_batch(),
            self.unconnected,
            observer,
        )

    def traced_at(self, size: int) -> Traced:
        """What the run computes, traced with another number of samples; nothing is run."""
        data = map_leaves(
            lambda leaf: tf.TensorSpec([size, *leaf.shape[1:]], leaf.dtype),
            (self.batch.x, self.batch.y, self.batch.sample_weight),
        )
        state = [tf.TensorSpec(value.shape, value.dtype) for _, value in self.state]
        free = self.free_terms
        inside: dict[str, Any] = {}

        def loss(data: Any, values: list[tf.Tensor]) -> tf.Tensor:
            given = [(v, value) for (v, _), value in zip(self.state, values, strict=True)]
            box = Sandbox(given, self.variables)
            with attributes_kept(self.model), box, _keras.intercept():
                y_pred, terms = self._forward(Batch(*data), unroll=True)
                inside["forward"] = len(tf.compat.v1.get_default_graph().get_operations())
                total = self._loss(Batch(*data), y_pred, owned(terms, free))
            versions = box.versions(self.variables)
            inside["rewritten"] = {k for k, each in enumerate(versions) if len(each) > 1}
            inside["weights"] = [each[0] for each in versions]
            inside["data"] = leaves(data)
            return total

        with tf.init_scope():  # traced inside another graph, it would keep that from being freed
            graph = _keras.compiled(loss).get_concrete_function(data, state).graph
        found = dict(inside)
        inside.clear()
        return Traced(graph.get_operations(), loss=graph.outputs[0], **found)

    def again(self, batch: Batch | None = None) -> Outcome:
        """The whole batch, or another in its place, run once more with the same noise."""
        batch = batch or self.batch
        with attributes_kept(self.model), self._sandbox(), self._replay().of(None):
            y_pred, terms = self._forward(batch, unroll=False)
            return Outcome(y_pred, self._loss(batch, y_pred, owned(terms, self.free_terms)))

    def loss_at(self, y_pred: Any) -> tf.Tensor:
        """The batch's scalar at other predictions, without the terms that no sample owns."""
        return self._loss_with(y_pred, owned(self.terms, self.free_terms), None)

    def batch_term(self) -> list[tf.Tensor]:
        """The gradient of the terms that no sample owns, one tensor a variable.

        Each term's gradient is computed on its own, never as a remainder, and multiplied by what
        the loss does with that term: 1 for Keras' own `compute_loss`, 0 where an overridden one
        leaves `self.losses` out.
        """
        if not self.penalized and not any(self.free_terms):
            return [tf.zeros_like(weight) for weight in self.weights]
        with tf.GradientTape() as tape:
            stubs = self._no_penalties()
            terms = owned(self.terms, self.free_terms)
            tape.watch([stubs, terms])
            loss = self._loss_with(self.y_pred, terms, stubs)
        sources = [*self._free(terms), *stubs]
        shares = tape.gradient(loss, sources, unconnected_gradients="zero")

        def total() -> tf.Tensor:
            free = []
            if any(self.free_terms):
                with self._replay().of(None):
                    free = self._free(self._forward(self.batch, unroll=False)[1])
            pairs = zip(shares, [*free, *self._penalties()], strict=True)
            return tf.add_n([tf.reduce_sum(s * tf.cast(t, s.dtype)) for s, t in pairs])

        return differentiate(total, self.model, self.variables, self.state)[1]

    # --- the parts of a run; all but the first are called in a sandbox ---

    def _samples_loss(self, batch: Batch, free: list[bool] | None = None) -> tf.Tensor:
        """The batch's scalar without the terms that no sample owns, recurrent layers unrolled."""
        y_pred, terms = self._forward(batch, unroll=True)
        return self._loss(batch, y_pred, owned(terms, self.free_terms if free is None else free))

    def _gradients(
        self, loss_of: Callable[[], tf.Tensor], scale: tf.Tensor | None
    ) -> LossAndGradients:
        loss, gradients = differentiate(
            loss_of, self.model, self.variables, self.state, scale, self.unconnected
        )
        return tf.cast(loss, self.loss_dtype), gradients

    def _scale_of_the_batch(self) -> tf.Tensor | None:
        """What the batch's scalar is multiplied by before the backward pass, or None."""
        if self.gradient_scale is None:
            return None
        return self.gradient_scale * tf.cast(tf.maximum(self.size, 1), self.gradient_scale.dtype)

    def _sandbox(self) -> Sandbox:
        return Sandbox(self.state, self.variables)

    def _replay(self, start: int = 0) -> Replay:
        shared = self.of == "contribution"
        return Replay(self.recording, self.size, shared_divisors=shared, start=start)

    def _forward(self, batch: Batch, unroll: bool) -> tuple[Any, list[tf.Tensor]]:
        if unroll:
            unroll_recurrent_layers(self.model)
        y_pred = _keras.forward(self.model, batch.x, self.training)
        return y_pred, _keras.added_losses(self.model)

    def _loss(
        self,
        batch: Batch,
        y_pred: Any,
        terms: list[tf.Tensor],
        *,
        alone: bool = False,
        penalties: list[tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """The scalar that is differentiated. Keras sums what `add_loss` was given as a vector."""
        if alone and self.of == "contribution" and not overrides_compute_loss(self.model):
            terms = [t if t.shape.rank == 0 else t * tf.cast(self.size, t.dtype) for t in terms]
        penalties = self._no_penalties() if penalties is None else penalties
        with _keras.losses_replaced(self.model, [*terms, *penalties]):
            loss = _keras.compute_loss(
                self.model, batch.x, batch.y, y_pred, batch.sample_weight, self.training
            )
        return summed(loss, 1 if alone else batch.size)

    def _loss_with(
        self, y_pred: Any, terms: list[tf.Tensor], penalties: list[tf.Tensor] | None
    ) -> tf.Tensor:
        uses_layers = overrides_compute_loss(self.model)
        replay = self._replay(0 if uses_layers else self.recording.forward_draws)
        with attributes_kept(self.model), self._sandbox(), replay.of(None):
            if uses_layers:  # it may read what the forward pass left on the model
                self._forward(self.batch, unroll=False)
            return self._loss(self.batch, y_pred, terms, penalties=penalties)

    @cached_property
    def _values(self) -> dict[int, tf.Tensor]:
        return {id(variable): value for variable, value in self.state}

    @cached_property
    def penalized(self) -> list[keras.Variable]:
        """The weights with a regularizer."""
        return [v for v in self.model.trainable_weights if v.regularizer is not None]

    def _penalties(self) -> list[tf.Tensor]:
        return [v.regularizer(tf.convert_to_tensor(v)) for v in self.penalized]

    def _no_penalties(self) -> list[tf.Tensor]:
        return [tf.zeros((), self._values[id(v)].dtype) for v in self.penalized]

    def _free(self, terms: list[tf.Tensor]) -> list[tf.Tensor]:
        return [term for term, free in zip(terms, self.free_terms, strict=True) if free]
