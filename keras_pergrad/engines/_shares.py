"""Whether shares, which add up whatever they are, are contributions."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from keras_pergrad.engines._loop import one_by_one
from keras_pergrad.engines._refusal import no_contributions
from keras_pergrad.engines._remembered import Remembered
from keras_pergrad.engines._separation import Separation
from keras_pergrad.engines._sums import RTOL, RTOL_ALONE, double, norm_of, squared_norms
from keras_pergrad.gradients import Blocks, Total
from keras_pergrad.runs import Run

# How many samples are run alone to tell a mean from a sum: a factor of B between them.
_ASKED = 2
_NOT_ASKED, _ARE, _ARE_NOT = -1, 1, 0


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
        refusal = no_contributions(run, engine, finite=bool(finite), ambiguous=False)
        return Separation(blocks, known, ~known & finite, refusal)
    refusal = no_contributions(run, engine, finite=True, ambiguous=False)
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
    return Separation(blocks, tf.equal(found, _ARE), failed, refusal)


def _are_contributions(blocks: Blocks, run: Run) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Whether the shares add up and, where that proves nothing, are those of samples run alone.

    Returns:
        That; whether they are finite; and whether all are zero. Scalar bools.
    """
    expected = _expected(blocks, run)
    compared = blocks.compared(expected.find())
    theirs = [there * tf.cast(expected.count, there.dtype) for _, there in compared]
    pairs = zip(compared, theirs, strict=True)
    missing = norm_of([ours - tf.cast(there, ours.dtype) for (ours, _), there in pairs])
    norm = norm_of(theirs)
    scale = tf.sqrt(tf.reduce_sum(blocks.each(squared_norms)))
    known = missing <= RTOL[run.compute_dtype] * tf.maximum(norm, scale)
    finite, nothing = tf.math.is_finite(scale), tf.equal(scale + norm, 0)
    if run.is_opaque and not blocks.interacts:
        alone = _are_of_samples_alone(blocks, run)
        known, finite = known & alone[0], finite & alone[1]
    return known, finite, nothing


def _expected(blocks: Blocks, run: Run) -> Total:
    """What the samples have to add up to.

    In a graph of its own that is computed once more, where it is asked: a branch that runs once
    must not keep alive what nothing else may need.
    """
    if blocks.expected is not None and (tf.executing_eagerly() or run.observer is not None):
        return blocks.expected
    return Total(lambda: run.batch_gradient(of_samples=True)[1], blocks.size, are_means=True)


def _are_of_samples_alone(blocks: Blocks, run: Run) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether one factor alone makes a few samples' own gradients their shares; and finiteness."""
    size = tf.cast(tf.maximum(blocks.size, 1), tf.float64)
    picks = tf.range(tf.minimum(blocks.size, _ASKED))
    _, alone = one_by_one(dataclasses.replace(run, of="own"), picks)
    ours = [double(factor.materialize()) for factor in blocks.at(picks).factors]
    alone = [double(each) for each in alone]
    norms = tf.linalg.global_norm(alone), tf.linalg.global_norm(ours)
    found = tf.constant(0)
    for candidate in (1 / size, size, tf.ones((), tf.float64)):
        missing = [o - candidate * a for o, a in zip(ours, alone, strict=True)]
        allowed = _alone_rtol(run) * candidate * norms[0]
        found += tf.cast(tf.linalg.global_norm(missing) <= allowed, tf.int32)
    nothing = norms[0] + norms[1] == 0  # every factor fits, and none makes a difference
    known = (found == 1) | (size == 1) & (found > 0) | nothing
    return known, tf.math.is_finite(norms[0])


def _alone_rtol(run: Run) -> float:
    """Of two samples, what a kink makes of one counts more; a factor of two is far off."""
    return min(10 * RTOL_ALONE[run.compute_dtype], 0.2)
