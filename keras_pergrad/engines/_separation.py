"""Contributions are refused where they do not exist, and scaled where only their sum is known.

Keras can be asked by what a `keras.losses.Loss` divides. An overridden `compute_loss`, a scalar
given to `add_loss` or a loss function that returns a scalar cannot. But the gradients tell: with
`g_i` those of samples run alone, a mean over the batch has the gradient `(1/B) Σ g_i`, a sum has
`Σ g_i`, and its loss likewise. So contributions are `1`, `B` or `1/B` times the samples' own
gradients, whichever one alone adds up to the batch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines._refusal import no_contributions
from keras_pergrad.engines._scaled import marked_blocks, scaled_blocks
from keras_pergrad.engines._sums import RTOL_ALONE, double, squared_norms, summed
from keras_pergrad.errors import SeparationError
from keras_pergrad.gradients import Blocks
from keras_pergrad.runs import Run

_NAN = float("nan")


@dataclass(frozen=True)
class Separation:
    """Contributions, and whether they are known.

    Attributes:
        blocks: the contributions, where they are known.
        known: whether they are, a scalar bool.
        failed: whether they are not although all gradients are finite: where loss scaling skips a
            step, there is nothing to know.
        refusal: what to say of that.
    """

    blocks: Blocks
    known: tf.Tensor
    failed: tf.Tensor
    refusal: SeparationError

    def insisted(self) -> Blocks:
        """The blocks, if they are known.

        Raises:
            SeparationError: eagerly. In a graph an assertion says the same; under XLA, which has
                none, the results are NaN.
        """
        if tf.executing_eagerly():
            if not bool(self.known):
                raise self.refusal
            return self.blocks
        one = tf.where(self.failed, tf.constant(_NAN, tf.float64), tf.ones((), tf.float64))
        if _keras.under_xla():
            return scaled_blocks(self.blocks, one)
        tf.debugging.Assert(~self.failed, [str(self.refusal)])
        return marked_blocks(self.blocks, one)


def separate(blocks: Blocks, run: Run, engine: str) -> Separation:
    """The blocks times the factor that makes the mean of the gradients the batch's.

    Where Keras' own losses do the reduction, their denominators are known and the factor has to be
    1: anything else means that samples interact. Costs one more backward pass of the batch.
    """
    size = tf.cast(tf.maximum(blocks.size, 1), tf.float64)
    ours = _taken_together(blocks, size)
    loss, gradients = run.batch_gradient(of_samples=True)
    batch = double(loss), [double(each) for each in gradients]
    factor, ambiguous = _only_factor(ours, batch, size, run)
    finite = tf.math.is_finite(ours.gradient_scale)
    if not run.is_opaque:  # the factor is known; with a NaN there is nothing to verify it by
        factor = tf.where(finite, factor, tf.ones_like(factor))
    known = ~tf.math.is_nan(factor)
    why = not tf.executing_eagerly() or bool(finite), tf.executing_eagerly() and bool(ambiguous)
    refusal = no_contributions(run, engine, finite=why[0], ambiguous=why[1])
    scaled = scaled_blocks(blocks, factor) if run.is_opaque else blocks
    return Separation(scaled, known, ~known & finite, refusal)


class _Sum(NamedTuple):
    """The samples taken together: means of losses and gradients, and the sizes of what is added."""

    loss: tf.Tensor
    loss_scale: tf.Tensor
    gradient: list[tf.Tensor]
    gradient_scale: tf.Tensor


def _taken_together(blocks: Blocks, size: tf.Tensor) -> _Sum:
    return _Sum(
        double(tf.reduce_sum(blocks.each(lambda block: block.losses))) / size,
        double(tf.reduce_sum(tf.abs(blocks.each(lambda block: block.losses)))) / size,
        [double(total) / size for total in blocks.total(summed)],
        tf.sqrt(tf.reduce_sum(blocks.each(squared_norms)) / size),
    )


def _only_factor(
    ours: _Sum, batch: tuple, size: tf.Tensor, run: Run
) -> tuple[tf.Tensor, tf.Tensor]:
    """The one factor that fits, NaN where none or several do; and whether several do."""
    candidates = (1 / size, size, tf.ones((), tf.float64)) if run.is_opaque else (1.0,)
    factor, found = tf.constant(_NAN, tf.float64), tf.constant(0)
    for candidate in candidates:
        candidate = tf.cast(candidate, tf.float64)
        fits = _fits(candidate, ours, batch, RTOL_ALONE[run.compute_dtype])
        factor = tf.where(fits, candidate, factor)
        found += tf.cast(fits, tf.int32)
    # Where all is zero every factor fits, and none makes a difference.
    zero = (ours.gradient_scale == 0) & (tf.linalg.global_norm(batch[1]) == 0)
    ambiguous = (found > 1) & (size > 1) & ~zero
    return tf.where(ambiguous, tf.constant(_NAN, tf.float64), factor), ambiguous


def _fits(candidate: tf.Tensor, ours: _Sum, batch: tuple, rtol: float) -> tf.Tensor:
    """Whether `candidate` times the samples is the batch, in its loss and in its gradient.

    Either may agree by accident: losses where a head is zero, gradients at a stationary point.
    Away from one the gradient is proof enough, and the loss may have a term without any.
    """
    loss, gradient = batch
    missing = tf.linalg.global_norm(
        [b - candidate * m for b, m in zip(gradient, ours.gradient, strict=True)]
    )
    allowed = tf.maximum(tf.linalg.global_norm(gradient), candidate * ours.gradient_scale)
    same_loss = tf.abs(loss - candidate * ours.loss) <= rtol * candidate * ours.loss_scale
    telling = tf.linalg.global_norm(gradient) > 10 * rtol * candidate * ours.gradient_scale
    return (missing <= rtol * allowed) & (same_loss | telling)
