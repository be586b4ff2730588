"""What the three tests of a verdict measure, as tensors of known shape.

They are computed wherever the model runs, also under XLA, and judged on the host.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import Engine, in_turn, sample_gradients, why_not_alone
from keras_pergrad.equivalence import _ratios
from keras_pergrad.equivalence._chance import pick
from keras_pergrad.equivalence._probe import Coupling, probe
from keras_pergrad.gradients import Block, Materialized, SampleGradients, Total
from keras_pergrad.runs import Run

NON_FINITE_SHOWN = 8
COLUMNS = ("batch", "mean", "difference", "product", "spread")


class Evidence(NamedTuple):
    """The measurements of one batch; float64 unless said otherwise.

    Attributes:
        table: `[V, 5]`, per variable: `‖batch‖²`, `‖mean + R‖²`, `‖mean + R - batch‖²`, their
            inner product, and the mean of the samples' `‖g_i‖²`.
        oracle: `[V, 5]`, the same with the loop's gradients of a few samples, or of all, for the
            batch's; zeros where no sample can be run alone.
        asked: how many samples that were, int32.
        coupling: what moved when other samples changed.
        size: the number of samples, int32.
        non_finite: how many samples have a gradient that is not finite, int32, and the indices of
            the first `NON_FINITE_SHOWN`, filled up with the size.
        batch_finite: whether the batch gradient's squared norms are finite, bool.
    """

    table: tf.Tensor
    oracle: tf.Tensor
    asked: tf.Tensor
    coupling: Coupling
    size: tf.Tensor
    non_finite: tf.Tensor
    non_finite_indices: tf.Tensor
    batch_finite: tf.Tensor


def gather_evidence(
    run: Run,
    engine: Engine,
    batch_gradient: list[tf.Tensor],
    memory_budget: int,
    *,
    rtol: float,
    samples: int,
    turn: int | tf.Tensor,
) -> Evidence:
    """Measures a run of *own* gradients.

    Args:
        run: the run.
        engine: the engine whose gradients are judged.
        batch_gradient: one tensor a variable.
        memory_budget: bytes for one chunk of samples.
        rtol: the relative tolerance.
        samples: how many of them the oracle recomputes.
        turn: a number that differs from check to check: what chance depends on.
    """
    g = sample_gradients(run, engine, memory_budget)
    norms = g.blocks.each(_squared_norms_by_variable)
    wrong = ~tf.math.is_finite(tf.reduce_sum(norms, axis=1))
    if engine.definition == "jacobian":  # one sample's NaN is in every row: 0 times NaN is NaN
        sick = ~tf.math.is_finite(g.losses)
        wrong = tf.where(tf.reduce_any(sick), sick, wrong)
    mean = _mean(g)
    size = tf.convert_to_tensor(g.num_samples, tf.int32)
    table = _compare(batch_gradient, mean, tf.reduce_mean(norms, axis=0))
    coupling = probe(run, turn)
    if not _keras.under_xla():  # it wants to know how many
        everybody = _only_noticed(table, coupling, rtol) & _fits(run, memory_budget) & g.blocks.fits
        samples = tf.where(everybody, size, samples)
    picks = pick(run.size, samples, turn)
    return Evidence(
        table,
        _ask_oracle(run, g, picks),
        tf.shape(picks)[0] if why_not_alone(run) is None else tf.constant(0),
        coupling,
        size,
        tf.reduce_sum(tf.cast(wrong, tf.int32)),
        _first(wrong, size),
        tf.reduce_all(tf.math.is_finite(table[:, _ratios.BATCH])),
    )


def _mean(g: SampleGradients) -> list[tf.Tensor]:
    """The mean of the samples, and the terms that no sample owns: what the batch's has to be.

    Added up here from what each sample has. `g.mean()` of shares may be the tape's own sum, and a
    comparison of that with itself could not fail.
    """

    def added_up() -> list[tf.Tensor]:
        return g.blocks.total(lambda block: [each.weighted_sum(None) for each in block.factors])

    means = Total(added_up, g.num_samples, are_means=False).means()
    return [tf.cast(m, r.dtype) + r for m, r in zip(means, g.batch_term, strict=True)]


def _only_noticed(table: tf.Tensor, coupling: Coupling, rtol: float) -> tf.Tensor:
    """Whether the mean is right although samples notice each other: then all are to be run alone.

    A prediction may hold what no gradient comes of, as a statistic that is only watched; and for
    engines that split the batch's own backward pass the mean is right whatever they split.
    """
    right = (_ratios.overall(table) <= rtol) & tf.reduce_all(_ratios.by_variable(table, rtol) <= 1)
    right &= _ratios.tells(table)
    return right & ~tf.reduce_all(_ratios.coupling(coupling) <= rtol)


def _fits(run: Run, memory_budget: int) -> tf.Tensor:
    """Whether the gradients of all samples, twice and in double precision, fit the budget."""
    entries = sum(weight.shape.num_elements() for weight in run.weights)
    return tf.cast(run.size, tf.float64) * 2 * 8 * entries <= memory_budget


def _ask_oracle(run: Run, g: SampleGradients, picks: tf.Tensor) -> tf.Tensor:
    if why_not_alone(run) is not None:
        return tf.zeros([len(run.variables), len(COLUMNS)], tf.float64)
    ours = [factor.materialize() for factor in g.blocks.at(picks).factors]
    theirs = in_turn(run, picks).gradients
    return _compare(theirs, ours, [_squared_norm(_double(each)) for each in theirs])


def _compare(reference: list[tf.Tensor], found: list[tf.Tensor], spread: Any) -> tf.Tensor:
    """The table of two gradients; a few operations a variable, as there may be hundreds."""
    pairs = [(_double(r), _double(f)) for r, f in zip(reference, found, strict=True)]
    batch, mean, difference = (
        tf.stack([_squared_norm(each) for each in side])
        for side in ([r for r, _ in pairs], [f for _, f in pairs], [f - r for r, f in pairs])
    )
    product = (batch + mean - difference) / 2
    return tf.stack([batch, mean, difference, product, _double(spread)], axis=1)


def _squared_norms_by_variable(block: Block) -> tf.Tensor:
    """`[b, V]`; where written out, in float64: the squares of tiny numbers vanish in float32."""
    norms = []
    for factor in block.factors:
        if isinstance(factor, Materialized):
            factor = Materialized(_double(factor.values))
        norms.append(_double(factor.squared_norms()))
    return tf.stack(norms, axis=1)


def _first(wrong: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    candidates = tf.sort(tf.where(wrong, tf.range(size), size))
    return tf.concat([candidates, tf.fill([NON_FINITE_SHOWN], size)], axis=0)[:NON_FINITE_SHOWN]


def _squared_norm(value: tf.Tensor) -> tf.Tensor:
    return 2 * tf.nn.l2_loss(value)


def _double(value: Any) -> tf.Tensor:
    return tf.cast(value, tf.float64)
