"""What is computed of a measured step, where the model runs: each primitive once.

Columns by variable, so that a host adds them up to layers or the whole model: norms, inner products
and their parts add up, whatever is made of them does not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from keras_pergrad.diagnostics._gram import gram_numbers
from keras_pergrad.diagnostics._groups import Groups
from keras_pergrad.diagnostics._unweighted import Unweighted
from keras_pergrad.gradients import SampleGradients, wide
from keras_pergrad.runs import Run

Gradient = list[tf.Tensor]

SQUARED_NORMS = "squared_norms"  # ‖g_i‖², `[B, V]`
PROJECTIONS = "projections"  # ⟨g_i, ḡ⟩, `[B, V]`
ALIGNMENTS = "alignments"  # ⟨g_i, v⟩ with a given gradient v, `[B, V]`
MEAN_SQUARES = "mean_squares"  # ‖ḡ‖², `[V]`
ALONG_UPDATE = "along_update"  # ⟨ḡ, Δθ⟩, `[V]`, with the step's own update
GRAM = "gram"  # of the Gram matrix ⟨g_i, g_j⟩ of each group: see `_gram.py`, `[4 G + 2]`
LOSSES = "losses"  # the samples' part of the scalar before the update, and after it, `[2]`
SIGNAL = "signal"  # Σ over a weight's numbers of ((ḡ² - s²/B)/s²), `[V]`


OF_SAMPLES = (SQUARED_NORMS, PROJECTIONS, ALIGNMENTS)
OF_STEP = (MEAN_SQUARES, ALONG_UPDATE, SIGNAL, LOSSES, GRAM)
_ROUNDING = 1e-6  # of a mean square in float32
OTHERWISE = (LOSSES, GRAM)  # with other numbers than one a variable
OF_REPLICAS = (LOSSES,)  # of which each replica has a part
OF_MEAN = (MEAN_SQUARES, ALONG_UPDATE)  # of the mean of all replicas, which each of them knows


def of_samples(
    g: SampleGradients | Unweighted,
    mean: Gradient | None,
    wanted: frozenset[str],
    *,
    reference: Sequence[tf.Tensor] = (),
) -> dict[str, tf.Tensor]:
    """Those of samples, name → `[B, V]`.

    Args:
        g: the samples' gradients.
        mean: the mean gradient of all replicas; None where there is one.
        wanted: the names of primitives.
        reference: the given gradient `v` of alignments, one tensor a variable.
    """
    found = {}
    if SQUARED_NORMS in wanted:
        found[SQUARED_NORMS] = _columns(g.squared_norms("variable"))
    if PROJECTIONS in wanted:
        along = g.projections("variable") if mean is None else g.dot(mean, "variable")
        found[PROJECTIONS] = _columns(along)
    if ALIGNMENTS in wanted:
        found[ALIGNMENTS] = _columns(g.dot(reference, "variable"))
    return found


def of_step(
    g: SampleGradients | Unweighted,
    mean: Gradient | None,
    wanted: frozenset[str],
    samples: dict[str, tf.Tensor],
    *,
    run: Run | None = None,
    applied: Gradient | None = None,
    groups: Groups | None = None,
    budget: int = 0,
) -> dict[str, tf.Tensor]:
    """Those of a step, name → `[k]`; after the update. Of one replica, but for `OF_MEAN`.

    Args:
        g, mean, wanted, samples: as for `of_samples`, and what that answered.
        run: the step's run.
        applied: the mean gradient that was applied, if it is none of `g`.
        groups: of the weights, which pairs of samples are compared in.
        budget: bytes that their Gram matrices may take.
    """
    found: dict[str, tf.Tensor] = {}
    if MEAN_SQUARES in wanted and mean is None and PROJECTIONS in samples:
        size = tf.cast(tf.maximum(g.num_samples, 1), tf.float64)
        found[MEAN_SQUARES] = tf.reduce_sum(samples[PROJECTIONS], axis=0) / size
    elif MEAN_SQUARES in wanted:
        found[MEAN_SQUARES] = _squares(g.means() if mean is None else mean)
    if ALONG_UPDATE in wanted and run is not None:
        found[ALONG_UPDATE] = _along_update(run, applied or mean or g.means())
    if SIGNAL in wanted:
        found[SIGNAL] = _signal(g)
    if GRAM in wanted and groups is not None:
        found[GRAM] = gram_numbers(g, groups, budget)
    if LOSSES in wanted and run is not None:
        found[LOSSES] = _losses(run)
    return {name: found[name] for name in OF_STEP if name in found}


def _along_update(run: Run, mean: Gradient) -> tf.Tensor:
    """`⟨ḡ, Δθ⟩` by variable, which is the mean of `⟨g_i, Δθ⟩`."""
    pairs = zip(_updated(run), run.weights, strict=True)
    steps = [wide(after - before) for after, before in pairs]
    products = [tf.cast(m, s.dtype) * s for m, s in zip(mean, steps, strict=True)]
    return tf.stack([tf.cast(tf.reduce_sum(each), tf.float64) for each in products])


def _updated(run: Run) -> Gradient:
    """The weights after the update, as they were read."""
    pairs = zip(run.variables, run.weights, strict=True)
    return [tf.cast(tf.convert_to_tensor(v), weight.dtype) for v, weight in pairs]


def _losses(run: Run) -> tf.Tensor:
    """The samples' part of the scalar, with the step's noise, at the weights before and after."""
    updated = dict(zip(map(id, run.variables), _updated(run), strict=True))
    state = [(v, updated.get(id(v), value)) for v, value in run.state]
    after = dataclasses.replace(run, state=state).again().loss
    return tf.stack([tf.cast(each, tf.float64) for each in (run.loss_at(run.y_pred), after)])


def _signal(g: SampleGradients | Unweighted) -> tf.Tensor:
    """Per-parameter gradient signal to noise, added up over each weight (Liu et al. 2020).

    `(ḡ² - s²/B)/s²` with the unbiased variance `s²`; zero where that is, but for rounding.
    """
    size = tf.cast(g.num_samples, tf.float64)
    found = []
    for mean, moment in zip(g.means(), g.second_moment(), strict=True):
        square = tf.cast(mean, tf.float64) ** 2
        variance = (tf.cast(moment, tf.float64) - square) * size / tf.maximum(size - 1, 1)
        ratio = tf.math.divide_no_nan(square - variance / size, variance)
        still = variance <= _ROUNDING * tf.cast(moment, tf.float64)  # not so of NaN
        found.append(tf.reduce_sum(tf.where(still, tf.zeros_like(ratio), ratio)))
    return tf.stack(found)


def _columns(numbers: dict[str, tf.Tensor]) -> tf.Tensor:
    return tf.stack([tf.cast(each, tf.float64) for each in numbers.values()], axis=-1)


def _squares(gradient: Gradient) -> tf.Tensor:
    """`[V]`: squared norms, in one pass over each tensor, without a copy of it."""
    halves = [tf.nn.l2_loss(wide(each)) for each in gradient]
    return tf.stack([2 * tf.cast(each, tf.float64) for each in halves])
