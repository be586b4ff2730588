"""One batch run through one model, and what any sample of it does by itself.

`Run` is what engines are given. It holds the values of all variables *before* the batch was run,
and the recording of the run, so that a part of it can be run again, any time, without a trace.
Each way of doing that is a file beside this one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs._apart import Apart, gradient_apart
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._batch_term import batch_term, which_are_free
from keras_pergrad.runs._calls import Call, recorded_calls
from keras_pergrad.runs._dtypes import coarsest
from keras_pergrad.runs._losses import contributed_losses, own_losses
from keras_pergrad.runs._observer import Observer
from keras_pergrad.runs._recording import Recording
from keras_pergrad.runs._row import row
from keras_pergrad.runs._sample import sample
from keras_pergrad.runs._state import State
from keras_pergrad.runs._tape import UNTRACKED, LossAndGradients
from keras_pergrad.runs._terms import overrides_compute_loss, owned
from keras_pergrad.runs._traced import Traced, traced_at
from keras_pergrad.runs._whole import Outcome, again, batch_gradient, loss_with, observe


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
        seen_dtypes: what the run's operations compute in, where a graph was traced of it.
        loss_rates: the derivative of the scalar in each loss that Keras reduced, None for no
            connection; None where that was not asked.
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
    seen_dtypes: set[str] = field(default_factory=set)
    loss_rates: list[tf.Tensor | None] | None = None
    observer: Observer | None = None

    # --- what is known about it ---

    @property
    def size(self) -> int | tf.Tensor:
        """The number of samples."""
        return self.batch.size

    @cached_property
    def weights(self) -> list[tf.Tensor]:
        """The values of `variables` before the run."""
        return [self.values[id(variable)] for variable in self.variables]

    @cached_property
    def values(self) -> dict[int, tf.Tensor]:
        """The values of all variables before the run, by their ids."""
        return {id(variable): value for variable, value in self.state}

    @property
    def loss_dtype(self) -> tf.DType:
        """What losses are reported in: Keras' `floatx`."""
        return tf.as_dtype(keras.config.floatx())

    @cached_property
    def compute_dtype(self) -> str:
        """The coarsest dtype that any layer, or a loss, computes in."""
        used = {layer.compute_dtype for layer in _keras.layers_of(self.model)}
        used |= {getattr(loss, "dtype", None) for loss in _keras.loss_objects(self.model)}
        return coarsest(used) or "float32"

    @property
    def coarsest_dtype(self) -> str:
        """The same of anything that the model computes, where that was seen."""
        return coarsest({self.compute_dtype, *self.seen_dtypes}) or "float32"

    @property
    def untracked(self) -> list[str]:
        """Paths of trainable weights that the run reads and nothing trains; filled by tracing."""
        return [path for path, reason in self.unconnected.items() if reason == UNTRACKED]

    @property
    def is_opaque(self) -> bool:
        """Whether the user's code reduces the loss over samples where Keras cannot be asked how."""
        terms = zip(self.terms, self.free_terms, strict=True)
        _, *of_outputs = _keras.loss_objects(self.model) or [None]
        silent = len(self.recording.divisors) < len(of_outputs)
        return (
            silent
            or overrides_compute_loss(self.model)
            or any(term.shape.rank == 0 for term, free in terms if not free)
            or any(divisor is None for divisor in self.recording.divisors)
        )

    @cached_property
    def free_terms(self) -> list[bool]:
        """Which of `terms` depend on no data. Empty where no layer called `add_loss`."""
        return which_are_free(self)

    @cached_property
    def penalized(self) -> list[keras.Variable]:
        """The weights with a regularizer."""
        return [v for v in self.model.trainable_weights if v.regularizer is not None]

    @property
    def sums_own_losses(self) -> bool:
        """Whether Keras' losses can be made to reduce to the sum of the samples' own."""
        return self.of == "own" and not self.is_opaque

    def contributions(self) -> Run:
        """The same run, for contributions in place of the samples' own gradients."""
        return dataclasses.replace(self, of="contribution")

    # --- its samples ---

    def sample(
        self, index: tf.Tensor, *, unroll: bool, note: Callable[[Any], None] = lambda _: None
    ) -> LossAndGradients:
        """The loss and the gradients of sample `index`, run alone as a batch of one.

        Args:
            index: of the sample.
            unroll: whether recurrent layers are unrolled.
            note: is given its predictions.

        Returns:
            The loss, a scalar, and one dense gradient a variable, in the variable's shape.
        """
        return sample(self, index, unroll=unroll, note=note)

    def row(self, index: tf.Tensor, *, unroll: bool) -> LossAndGradients:
        """The loss of sample `index` within the batched run, and its gradients: a Jacobian row."""
        return row(self, index, unroll=unroll)

    def losses(self) -> tf.Tensor | None:
        """What each sample contributes to the scalar, times `B`, `[B]`; None if nobody knows."""
        return contributed_losses(self)

    def own_losses(self, indices: tf.Tensor) -> tf.Tensor:
        """The losses of some samples, each run alone, `[b]`; no gradient is made."""
        return own_losses(self, indices)

    # --- the batch, once more ---

    def batch_gradient(self, *, of_samples: bool = False) -> LossAndGradients:
        """The batch's scalar and its gradient, with the run's noise.

        Args:
            of_samples: whether the terms that no sample owns are left out.
        """
        return batch_gradient(self, of_samples=of_samples)

    def gradient_apart(self, apart: Apart) -> LossAndGradients:
        """The samples' part of the batch's scalar, with some of it sample by sample. Eagerly."""
        return gradient_apart(self, apart)

    def calls(self) -> Call:
        """The layers' calls in the forward pass. Eagerly."""
        return recorded_calls(self)

    def batch_term(self) -> list[tf.Tensor]:
        """The gradient of the terms that no sample owns, one tensor a variable.

        Each term's gradient is computed on its own, never as a remainder, and multiplied by what
        the loss does with that term: 1 for Keras' own `compute_loss`, 0 where an overridden one
        leaves `self.losses` out.
        """
        return batch_term(self)

    def observe(self, observer: Observer) -> None:
        """Runs the samples' part of the batch's scalar and differentiates it, for an observer.

        Where `sums_own_losses`, the scalar is the sum of the samples' own losses. Recurrent layers
        are unrolled. Has to be called while a graph is traced.
        """
        observe(self, observer)

    def traced_at(self, size: int) -> Traced:
        """What the run computes, traced with another number of samples; nothing is run."""
        return traced_at(self, size)

    def again(self, batch: Batch | None = None, apart: Iterable[keras.Layer] = ()) -> Outcome:
        """The whole batch, or another in its place, run once more with the same noise.

        Args:
            batch: of as many samples.
            apart: layers that meet the samples one at a time; eagerly.
        """
        return again(self, batch or self.batch, apart)

    def loss_at(self, y_pred: Any) -> tf.Tensor:
        """The batch's scalar at other predictions, without the terms that no sample owns."""
        return loss_with(self, y_pred, owned(self.terms, self.free_terms))
