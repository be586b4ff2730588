"""A loss that divides by a number made of the whole batch, or by none."""

from __future__ import annotations

from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes._separating import separating
from keras_pergrad.equivalence.causes.instruments import Case, Output

KIND = "loss_normalization"
EVEN = "Compute one number a sample, of all its parts, and take the mean of those."
_BY_PLACE = (
    "The loss function gives a sample another number in a batch than alone, before Keras reduces "
    "those numbers: it looks at the sample's place, or at the whole batch, as at "
    "a mean of its targets."
)
_CONTRIBUTIONS = (
    "Contributions have these weights and add up: `per_sample_gradients(of='contribution')`, the "
    "default. For samples that count alike, "
)
_EACH = EVEN[0].lower() + EVEN[1:]
_ALIKE = "For samples that count alike, "


def loss_normalization(case: Case) -> Iterator[Cause]:
    """One cause for every loss in which samples count otherwise than in the mean of the samples.

    Two for one that has both a reduction and a function by which they do.
    """
    for output in case.outputs:
        if output.where in case.blamed or case.tied[output.number] or not _counts_otherwise(output):
            continue
        if not _is_plain_mean(output):
            explains = _undone(case, output)
            idle = explains is not None and not case.difference.changed
            if not (output.by_keras and idle):
                yield _of_reduction(case, output, explains)
            if not output.by_keras or not (idle or case.difference.is_left()):
                continue
        explains = case.undo_loss(output)
        if explains is None or case.difference.changed:
            yield Cause(KIND, output.where, _BY_PLACE, EVEN, explains)


def _counts_otherwise(output: Output) -> bool:
    """Also by what it makes of other samples' targets, which no prediction's derivative shows."""
    by_keras = output.kind == "scaled" and output.by_keras
    by_targets = output.kind == "tied" and output.compiled is not None
    return output.kind == "weighted" or by_keras or by_targets


def _undone(case: Case, output: Output) -> float | None:
    if not output.by_keras:
        return case.undo_loss(output)
    number = output.number if output.compiled is None else output.compiled.number
    return case.difference.undo(reductions=frozenset([number]))


def _is_plain_mean(output: Output) -> bool:
    """Whether Keras takes the plain mean of the function's numbers, or a factor is none of it."""
    if output.kind == "tied":
        return True
    reduced = output.reduced if output.by_keras else None
    return reduced is not None and reduced.kind == "sum_over_batch_size" and not reduced.masked


def _of_reduction(case: Case, output: Output, explains: float | None) -> Cause:
    because, remedy = _words(output, case)
    start = _CONTRIBUTIONS if output.by_keras else _ALIKE
    numbers = _table(output)
    return Cause(KIND, output.where, because, start + remedy, explains, numbers, case.samples)


def _words(output: Output, case: Case) -> tuple[str, str]:
    reduced = output.reduced
    if reduced is None or reduced.divisor is None:
        return (
            "It divides by a number that is made of the whole batch, so that samples do not count "
            "as they do alone.",
            "divide each sample's loss by its own number, and then by the number of samples.",
        )
    here = "" if case.size == case.whole else f" for the {case.size} samples looked into"
    by = f"It divides by {reduced.divisor:g}{here}"
    code = separating(case, output)
    if reduced.kind in (None, "sum"):
        return (
            f"With reduction={reduced.kind!r} it is a sum: in a batch of {case.whole} each sample "
            f"counts {case.whole} times as much as in the mean.",
            f"use `{code}` and a learning rate that much larger." if code else _EACH,
        )
    if reduced.kind == "mean_with_sample_weight":
        return (
            f"{by}, the sum of the sample weights, by which a weight counts against those of the "
            "others and cancels out for a sample alone.",
            f"use `{code}`, which divides by the number of samples." if code else _EACH,
        )
    return (
        f"{by}, the number of entries that a mask (or `ignore_class`) leaves in the whole batch; a "
        "sample alone divides by its own.",
        "reduce each sample's loss over its own entries in the loss function, to one number a "
        "sample.",
    )


def _table(output: Output) -> dict[str, list[float]]:
    table = {"weight": [float(each) for each in output.weights]}
    reduced = output.reduced
    if reduced is not None and reduced.own is not None and len(reduced.own) == len(output.weights):
        table["own denominator"] = reduced.own
    return table | {"weight in a mean": [1.0] * len(output.weights)}
