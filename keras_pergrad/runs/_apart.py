"""A batch in which some layers, and the loss, meet the samples one at a time.

What a batch does to its samples is undone piece by piece: where a layer mixes them, the batch with
that layer apart is what it would be if it did not. So each piece's part of a difference is seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import attributes_kept, tensors_held
from keras_pergrad.runs._cut import row_cut
from keras_pergrad.runs._losses_apart import called_one_by_one
from keras_pergrad.runs._own import mean_of_own_losses
from keras_pergrad.runs._replay import Replay
from keras_pergrad.runs._sample_by_sample import layers_apart
from keras_pergrad.runs._tape import LossAndGradients

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


@dataclass(frozen=True)
class Apart:
    """What meets the samples one at a time.

    Attributes:
        layers: each called once a sample; the others are called once for the batch.
        factors: by the number of what was given to `add_loss`, what it is multiplied by.
        reductions: by number, which of the losses that Keras reduces are the mean of the samples'
            own, each with its own denominator.
        losses: each the mean of what it is for the samples alone.
        loss: whether the whole loss is the mean of the samples' own losses, each computed alone.
    """

    layers: tuple[keras.Layer, ...] = ()
    factors: tuple[tuple[int, float], ...] = ()
    reductions: frozenset[int] = frozenset()
    losses: tuple[_keras.CompiledLoss, ...] = ()
    loss: bool = False


def gradient_apart(run: Run, apart: Apart) -> LossAndGradients:
    """The samples' part of the batch's scalar and its gradient, with some of it apart. Eagerly.

    Raises:
        UnsupportedError: a layer's output for one sample cannot be told.
    """

    def loss_of() -> tf.Tensor:
        told, before = _parts.replay(run), tensors_held(run.model)
        with told.of(None), layers_apart(run, apart.layers, told):
            y_pred, terms = _parts.forward(run, run.batch, unroll=False)
            terms = _weighted(run, terms, apart)
            if apart.loss:
                return _losses_apart(run, told, y_pred, terms, before)
            one_by_one = called_one_by_one(apart.losses, told, int(run.size))
            with mean_of_own_losses(apart.reductions, run.size), one_by_one:
                return _parts.loss(run, run.batch, y_pred, terms)

    return _parts.gradients(run, loss_of, _parts.scale_of_the_batch(run))


def terms_apart(run: Run, layers: Iterable[keras.Layer]) -> list[tuple[keras.Layer, tf.Tensor]]:
    """What the batch gives to `add_loss`, and which layer gives it, with some `layers` apart."""
    told = _parts.replay(run)
    box, apart = _parts.sandbox(run), layers_apart(run, layers, told)
    with attributes_kept(run.model), box, told.of(None), apart:
        terms = _parts.forward(run, run.batch, unroll=False)[1]
        return list(zip(_keras.layers_that_added(run.model), terms, strict=True))


def terms_alone(run: Run, index: int) -> list[tf.Tensor]:
    """What sample `index`, run alone, gives to `add_loss`."""
    at = tf.constant(index)
    with attributes_kept(run.model), _parts.sandbox(run), _parts.replay(run).of(at):
        return _parts.forward(run, run.batch.row(at), unroll=False)[1]


def _weighted(run: Run, terms: list[tf.Tensor], apart: Apart) -> list[tf.Tensor]:
    """The terms of the samples, each times its factor; a row of a vector is as it is."""
    factors = dict(apart.factors)

    def weighted(k: int, term: tf.Tensor) -> tf.Tensor:
        own = apart.loss and term.shape.rank
        return term * tf.cast(1.0 if own else factors.get(k, 1.0), term.dtype)

    pairs = enumerate(zip(terms, run.free_terms, strict=True))
    return [tf.zeros_like(term) if free else weighted(k, term) for k, (term, free) in pairs]


def _losses_apart(
    run: Run, told: Replay, y_pred: Any, terms: list[tf.Tensor], before: list[tf.Tensor]
) -> tf.Tensor:
    """The mean of the losses that the rows of a forward pass have alone.

    A term that is one number a sample is the sample's own; one that was reduced counts as it is.
    """
    losses = []
    for k in range(int(run.size)):
        with row_cut(run, k, y_pred, told, before) as row:
            owned = [row.of(term) if term.shape.rank else term for term in terms]
            losses.append(_parts.loss(run, row.batch, row.y_pred, owned, alone=True))
    return tf.add_n(losses) / tf.cast(len(losses), losses[0].dtype)
