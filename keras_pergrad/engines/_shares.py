"""Whether shares, which add up whatever they are, are contributions."""

from __future__ import annotations

import dataclasses
from typing import cast

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines._first_batch import ARE, ARE_NOT, NOT_ASKED, FirstBatch
from keras_pergrad.engines._refusal import no_contributions
from keras_pergrad.engines._remembered import Remembered
from keras_pergrad.engines._separation import Separation
from keras_pergrad.engines._sums import RTOL, RTOL_ALONE, double, norm_of, squared_norms
from keras_pergrad.engines._trace import refusing
from keras_pergrad.gradients import Blocks, Total, projected
from keras_pergrad.runs import Run


def separate_shares(
    blocks: Blocks, run: Run, engine: str, first: FirstBatch | None = None
) -> Separation:
    """Whether shares are contributions.

    They have to add up to what the tape gave: weights that are not factored are run alone. Where
    the user's code reduces the loss, that proves nothing for the others, as shares add up whatever
    they are: a few samples' shares have to be `1`, `B` or `1/B` times the gradients of those
    samples run alone. In a graph the first batch that it is run on is asked, and the answer kept.

    Args:
        blocks: the shares.
        run: the run.
        engine: whose name a refusal tells.
        first: what the first batch of a graph has to add up to; None where `blocks.expected` is
            what the tape gave.
    """
    if tf.executing_eagerly():
        known, finite, _ = _are_contributions(blocks, run, _by_the_tape(blocks))
        if not run.is_opaque:  # with a NaN there is nothing to verify them by
            known |= ~finite
        refusal = no_contributions(run, engine, finite=bool(finite), ambiguous=False)
        return Separation(blocks, known, ~known & finite, refusal)
    refusal = no_contributions(run, engine, finite=True, ambiguous=False)
    asked = Remembered(NOT_ASKED) if first is None else first.asked
    before = asked.read() if first is None else first.before

    def ask() -> tf.Tensor:
        sums = _by_the_tape(blocks) if first is None else first.sums(blocks.size)
        known, finite, nothing = _are_contributions(blocks, run, sums)
        size = tf.convert_to_tensor(blocks.size)
        # A NaN is no answer, nor is a batch of none: the next batch is asked.
        found = tf.where(known, ARE, tf.where(finite & (size > 0), ARE_NOT, NOT_ASKED))
        # Of one sample, or of zeros, everything is true.
        telling = (size > 1) & ~nothing
        asked.assign(tf.where(telling, found, NOT_ASKED))
        return found

    found = tf.cond(tf.equal(before, NOT_ASKED), ask, lambda: before)
    return Separation(blocks, tf.equal(found, ARE), tf.equal(found, ARE_NOT), refusal)


def _by_the_tape(blocks: Blocks) -> list[tf.Tensor]:
    """What the samples have to add up to, projected."""
    expected = cast(Total, blocks.expected)
    found = [projected(each) for each in expected.find()]
    return [each * tf.cast(expected.count, each.dtype) for each in found]


def _are_contributions(
    blocks: Blocks, run: Run, sums: list[tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Whether the shares add up and, where that proves nothing, are those of samples run alone.

    Returns:
        That; whether they are finite; and whether all are zero. Scalar bools.
    """
    pairs = zip(blocks.projected_sums(), sums, strict=True)
    missing = norm_of([ours - tf.cast(there, ours.dtype) for ours, there in pairs])
    norm = norm_of(sums)
    scale = tf.sqrt(tf.reduce_sum(blocks.each(squared_norms)))
    known = missing <= RTOL[run.compute_dtype] * tf.maximum(norm, scale)
    finite, nothing = tf.math.is_finite(scale), tf.equal(scale + norm, 0)
    if run.is_opaque and not blocks.interacts:
        true = tf.constant(True)
        alone = tf.cond(
            tf.convert_to_tensor(blocks.size) > 0,
            lambda: _are_of_samples_alone(blocks, run),
            lambda: (true, true),
        )
        known, finite = known & alone[0], finite & alone[1]
    return known, finite, nothing


def _are_of_samples_alone(blocks: Blocks, run: Run) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether one factor alone makes a few samples' own gradients their shares; and finiteness.

    By projections: two gradients of a sample need the memory of none.
    """
    size = tf.cast(tf.maximum(blocks.size, 1), tf.float64)
    own = dataclasses.replace(run, of="own")
    alone_of = _keras.traced_once(
        lambda k: [projected(each) for each in own.sample(k, unroll=False)[1]]
    )
    ours, alone = [], []
    for pick in (tf.constant(0), tf.minimum(1, tf.convert_to_tensor(blocks.size) - 1)):
        factors = blocks.at(tf.reshape(pick, [1])).factors
        ours += [double(factor.projected_sum()) for factor in factors]
        with refusing("loop"):
            alone += [double(each) for each in alone_of(pick)]
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
