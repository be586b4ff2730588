"""Contributions are refused where they do not exist, and scaled where only their sum is known.

Keras can be asked by what a `keras.losses.Loss` divides. An overridden `compute_loss`, a scalar
given to `add_loss` or a loss function that returns a scalar cannot. But the gradients tell: with
`g_i` those of samples run alone, a mean over the batch has the gradient `(1/B) Σ g_i`, a sum has
`Σ g_i`, and its loss likewise. So contributions are `1`, `B` or `1/B` times the samples' own
gradients, whichever one alone adds up to the batch's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from keras_pergrad.engines._loop import one_by_one
from keras_pergrad.engines._remembered import Remembered
from keras_pergrad.errors import SeparationError
from keras_pergrad.gradients import Block, Blocks
from keras_pergrad.runs import Run

# Losses and gradients agree to rounding errors of a sum of B terms in the compute dtype, with room;
# in float64, too, as Keras' LoRA keeps to float32. What is told apart differs by its own size.
_NAN = float("nan")
# How many samples are run alone to tell a mean from a sum: a factor of B between them.
_ASKED = 2
_NOT_ASKED, _ARE, _ARE_NOT = -1, 1, 0
RTOL = {"float64": 1e-5, "float32": 1e-4, "bfloat16": 1e-1, "float16": 5e-2}


class _Sum(NamedTuple):
    """The samples taken together: means of losses and gradients, and the sizes of what is added."""

    loss: tf.Tensor
    loss_scale: tf.Tensor
    gradient: list[tf.Tensor]
    gradient_scale: tf.Tensor


def _fits(candidate: tf.Tensor, ours: _Sum, batch: tuple, rtol: float) -> tf.Tensor:
    """Whether `candidate` times the samples is the batch, in its loss and in its gradient.

    Either may agree by accident: losses where a head is zero, gradients at a stationary point.
    """
    loss, gradient = batch
    missing = tf.linalg.global_norm(
        [b - candidate * m for b, m in zip(gradient, ours.gradient, strict=True)]
    )
    allowed = tf.maximum(tf.linalg.global_norm(gradient), candidate * ours.gradient_scale)
    same_loss = tf.abs(loss - candidate * ours.loss) <= rtol * candidate * ours.loss_scale
    return (missing <= rtol * allowed) & same_loss


class _Scaled(Blocks):
    """Blocks times a factor that is known once all losses are."""

    def __init__(self, blocks: Blocks, factor: tf.Tensor):
        self._blocks = blocks
        self._factor = factor
        self.size, self.held, self.interacts = blocks.size, blocks.held, blocks.interacts
        self.expected = [each * tf.cast(factor, each.dtype) for each in blocks.expected]

    def __str__(self) -> str:
        return str(self._blocks)

    def at(self, indices):
        return self._scale(self._blocks.at(indices))

    def total(self, function):
        return self._blocks.total(lambda block: function(self._scale(block)))

    def each(self, function):
        return self._blocks.each(lambda block: function(self._scale(block)))

    def _scale(self, block: Block) -> Block:
        factors = [factor.times(self._factor) for factor in block.factors]

        def losses() -> tf.Tensor:
            return block.losses * tf.cast(self._factor, block.losses.dtype)

        return Block(block.indices, losses, factors)


@dataclass(frozen=True)
class Separation:
    """Contributions, and whether they are known.

    Attributes:
        blocks: the contributions, NaN where they are not known.
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
        stop = tf.debugging.Assert(~self.failed, [str(self.refusal)])
        with tf.control_dependencies([] if stop is None else [stop]):
            one = tf.where(self.failed, tf.constant(_NAN, tf.float64), tf.ones((), tf.float64))
        return _Scaled(self.blocks, one)


def separate(blocks: Blocks, run: Run, engine: str) -> Separation:
    """The blocks times the factor that makes the mean of the gradients the batch's.

    Where Keras' own losses do the reduction, their denominators are known and the factor has to be
    1: anything else means that samples interact. Costs one more backward pass of the batch.
    """
    size = tf.cast(tf.maximum(blocks.size, 1), tf.float64)
    ours = _taken_together(blocks, size)
    loss, gradients = run.batch_gradient(of_samples=True)
    batch = _double(loss), [_double(each) for each in gradients]
    candidates = (1 / size, size, tf.ones((), tf.float64)) if run.is_opaque else (1.0,)
    factor, found = tf.constant(_NAN, tf.float64), tf.constant(0)
    for candidate in candidates:
        candidate = tf.cast(candidate, tf.float64)
        fits = _fits(candidate, ours, batch, RTOL[run.compute_dtype])
        factor = tf.where(fits, candidate, factor)
        found += tf.cast(fits, tf.int32)
    # Where all is zero every factor fits, and none makes a difference.
    zero = (ours.gradient_scale == 0) & (tf.linalg.global_norm(batch[1]) == 0)
    ambiguous = (found > 1) & (size > 1) & ~zero
    factor = tf.where(ambiguous, tf.constant(_NAN, tf.float64), factor)
    finite = tf.math.is_finite(ours.gradient_scale)
    if not run.is_opaque:  # the factor is known; with a NaN there is nothing to verify it by
        factor = tf.where(finite, factor, tf.ones_like(factor))
    known = ~tf.math.is_nan(factor)
    why = not tf.executing_eagerly() or bool(finite), tf.executing_eagerly() and bool(ambiguous)
    refusal = _no_contributions(run, engine, finite=why[0], ambiguous=why[1])
    scaled = _Scaled(blocks, factor) if run.is_opaque else blocks
    return Separation(scaled, known, ~known & finite, refusal)


def separate_shares(blocks: Blocks, run: Run, engine: str) -> Separation:
    """Whether shares are contributions.

    They have to add up to what the tape gave: weights that are not factored are run alone. Where
    the user's code reduces the loss, that proves nothing for the others, as shares add up whatever
    they are: a few samples' shares have to be `1`, `B` or `1/B` times the gradients of those
    samples run alone. In a graph the first batch that it is run on is asked, and the answer kept.
    """
    if tf.executing_eagerly():
        known, finite, _ = _are_contributions(blocks, run)
        if not run.is_opaque:  # with a NaN there is nothing to verify them by
            known |= ~finite
        refusal = _no_contributions(run, engine, finite=bool(finite), ambiguous=False)
        return Separation(blocks, known, ~known & finite, refusal)
    refusal = _no_contributions(run, engine, finite=True, ambiguous=False)
    answer = Remembered(_NOT_ASKED)

    def ask() -> tf.Tensor:
        known, finite, nothing = _are_contributions(blocks, run)
        # A NaN is no answer: the next batch is asked.
        found = tf.where(known, _ARE, tf.where(finite, _ARE_NOT, _NOT_ASKED))
        # Of one sample, or of zeros, everything is true.
        telling = (tf.convert_to_tensor(blocks.size) > 1) & ~nothing
        answer.assign(tf.where(telling, found, _NOT_ASKED))
        return found

    before = answer.read()
    found = tf.cond(tf.equal(before, _NOT_ASKED), ask, lambda: before)
    failed = tf.equal(found, _ARE_NOT)
    one = tf.where(failed, tf.constant(_NAN, tf.float64), tf.ones((), tf.float64))
    return Separation(_Scaled(blocks, one), tf.equal(found, _ARE), failed, refusal)


def _are_contributions(blocks: Blocks, run: Run) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Whether the shares add up and, where that proves nothing, are those of samples run alone.

    Returns:
        That; whether they are finite; and whether all are zero. Scalar bools.
    """
    sums = [_double(each) for each in blocks.total(_sums)]
    expected = [_double(each) for each in blocks.expected]
    missing = tf.linalg.global_norm([s - e for s, e in zip(sums, expected, strict=True)])
    norm = tf.linalg.global_norm(expected)
    scale = tf.sqrt(tf.reduce_sum(blocks.each(_squared_norms)))
    known = missing <= RTOL[run.compute_dtype] * tf.maximum(norm, scale)
    finite, nothing = tf.math.is_finite(scale), tf.equal(scale + norm, 0)
    if run.is_opaque and not blocks.interacts:
        alone = _are_of_samples_alone(blocks, run)
        known, finite = known & alone[0], finite & alone[1]
    return known, finite, nothing


def _are_of_samples_alone(blocks: Blocks, run: Run) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether one factor alone makes a few samples' own gradients their shares; and finiteness."""
    size = tf.cast(tf.maximum(blocks.size, 1), tf.float64)
    picks = tf.range(tf.minimum(blocks.size, _ASKED))
    _, alone = one_by_one(dataclasses.replace(run, of="own"), picks)
    ours = [_double(factor.materialize()) for factor in blocks.at(picks).factors]
    alone = [_double(each) for each in alone]
    norms = tf.linalg.global_norm(alone), tf.linalg.global_norm(ours)
    found = tf.constant(0)
    for candidate in (1 / size, size, tf.ones((), tf.float64)):
        missing = [o - candidate * a for o, a in zip(ours, alone, strict=True)]
        allowed = RTOL[run.compute_dtype] * candidate * norms[0]
        found += tf.cast(tf.linalg.global_norm(missing) <= allowed, tf.int32)
    nothing = norms[0] + norms[1] == 0  # every factor fits, and none makes a difference
    known = (found == 1) | (size == 1) & (found > 0) | nothing
    return known, tf.math.is_finite(norms[0])


def _taken_together(blocks: Blocks, size: tf.Tensor) -> _Sum:
    return _Sum(
        _double(tf.reduce_sum(blocks.each(lambda block: block.losses))) / size,
        _double(tf.reduce_sum(tf.abs(blocks.each(lambda block: block.losses)))) / size,
        [_double(total) / size for total in blocks.total(_sums)],
        tf.sqrt(tf.reduce_sum(blocks.each(_squared_norms)) / size),
    )


def _sums(block: Block) -> list[tf.Tensor]:
    return [factor.weighted_sum(None) for factor in block.factors]


def _squared_norms(block: Block) -> tf.Tensor:
    return tf.add_n([_double(factor.squared_norms()) for factor in block.factors])


def _double(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.float64)


def _no_contributions(run: Run, engine: str, *, finite: bool, ambiguous: bool) -> SeparationError:
    way_out = ""
    if not finite:
        why = (
            "A sample's gradient is not finite, and the model's own code reduces the loss, so that "
            "the samples' contributions cannot be told"
        )
    elif ambiguous:
        why = (
            "The gradients of the samples add up to the batch gradient both as a mean and as a "
            "sum, and the model's own code reduces the loss, so that a sample's contribution is "
            "not known"
        )
    elif run.is_opaque:
        why = (
            "The gradients of the samples add up to the batch gradient neither as a mean nor as a "
            "sum, and the model's own code reduces the loss, so that a sample's contribution is "
            "not known"
        )
        way_out = " Reduce it by a keras.losses.Loss in `compile`, which says how it does."
    else:
        why = (
            "The gradients of the samples do not add up to the batch gradient: the samples "
            "interact, in the model (BatchNormalization) or in the loss (Dice), and none has a "
            "contribution of its own"
        )
        if engine != "jacobian":
            way_out = " Use engine='jacobian' where the model interacts."
    return SeparationError(
        f"{why}.{way_out} With of='own' you get each sample's own gradient. "
        f"Received: of='contribution', engine={engine!r}."
    )
