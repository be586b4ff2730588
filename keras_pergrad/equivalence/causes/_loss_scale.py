"""A loss that is the mean of the samples' losses but for a factor."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence._loss_scaling import scale_of
from keras_pergrad.equivalence.causes.instruments import Case, Output, inner, norm

KIND = "loss_scale"


def loss_scale(case: Case) -> Iterator[Cause]:
    """The factor between the batch's gradient and the mean of the samples' own, if it is one."""
    scaled = [each for each in case.outputs if each.kind == "scaled" and not each.by_keras]
    if scaled:
        yield from _of_outputs(case, scaled)
    elif case.difference.is_left() and not any(_is_known(each) for each in case.outputs):
        factor = _parallel(case)
        if factor is None or abs(factor - 1) < 1e-3:
            return
        explains = case.difference.undo(loss=True)
        if explains is not None and not case.difference.is_left():
            yield Cause(KIND, "compute_loss", *_words(factor, case), explains)


def _of_outputs(case: Case, scaled: list[Output]) -> Iterator[Cause]:
    """One cause for each loss that has a factor; one for all where one piece of code makes them.

    None where that gives its parts different ones: no number is that of the whole loss.
    """
    for output in scaled if all(each.compiled for each in scaled) else scaled[:1]:
        alike = [output] if output.compiled else _with_weights(case.outputs)
        factors = np.concatenate([each.weights for each in alike])
        factor = float(np.nanmedian(factors))
        if np.nanmax(abs(factors - factor)) > 1e-3 * abs(factor):
            return
        explains = case.undo_loss(output)
        if explains is not None:
            yield Cause(KIND, output.where, *_words(factor, case), explains)


def _with_weights(outputs: list[Output]) -> list[Output]:
    return [each for each in outputs if np.isfinite(each.weights).any()]


def undivided(case: Case) -> Iterator[Cause]:
    """A note on a loss of the model's own that is the same on replicas as without them.

    Replicas' gradients are added, so that Keras divides its own losses by how many there are; one
    that does not is as many times too large, which no single replica's gradients show.
    """
    strategy = case.model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if replicas == 1 or not case.run.is_opaque:
        return
    alone = float(case.run.again(case.run.batch).loss)
    there = strategy.run(lambda: case.run.again(case.run.batch).loss)
    there = [float(each) for each in strategy.experimental_local_results(there)]
    if alone and np.allclose(there, alone, rtol=100 * case.rtol):
        because = (
            f"`compute_loss` is as large on each of {replicas} replicas as it is without them, and "
            f"their gradients are added: the update is made of {replicas} times the mean."
        )
        remedy = "Divide the loss by `tf.distribute.get_strategy().num_replicas_in_sync`."
        yield Cause(KIND, "compute_loss", because, remedy)


def _is_known(output: Output) -> bool:
    return output.kind in ("tied", "weighted")


def _parallel(case: Case) -> float | None:
    """The batch's gradient over the mean, if one is the other times a number."""
    batch, mean = case.difference.reached, case.difference.mean
    sizes = norm(batch), norm(mean)
    if not all(sizes):
        return None
    cosine = inner(batch, mean) / (sizes[0] * sizes[1])
    return sizes[0] / sizes[1] if cosine > 1 - 100 * case.rtol else None


def _words(factor: float, case: Case) -> tuple[str, str]:
    """Where such a number comes from, and what to do."""
    rest = "times the mean of the samples'"
    for number, shown, what, remedy in _known_numbers(case):
        if np.isclose(factor, number, rtol=1e-3):
            return f"The batch's gradient is {shown} {rest}, {what}.", remedy
    return (
        f"The batch's gradient is {factor:.4g} {rest}, whatever the sample.",
        "Let the loss be the mean of what it is for each sample alone.",
    )


def _known_numbers(case: Case) -> Iterator[tuple[float, str, str, str]]:
    """Numbers that get into a loss: how they are shown, what they are, and what to do."""
    size, whole = case.size, case.whole
    yield (
        size,
        f"{whole}",
        "the number of samples: the loss is a sum over them",
        "Take the mean over the batch in the loss.",
    )
    yield (
        1 / size,
        f"1/{whole}",
        "one over the number of samples: the loss is divided by it twice",
        "Divide by the batch once: by a mean, or by the size.",
    )
    replicas = case.model.distribute_strategy.num_replicas_in_sync
    if replicas > 1:
        what = "the number of replicas, by which Keras' own losses are divided"
        remedy = "Divide the loss by `distribute_strategy.num_replicas_in_sync`."
        yield replicas, f"{replicas}", what, remedy
    yield from _numbers_of(case.model.optimizer)


def _numbers_of(optimizer: keras.Optimizer | None) -> Iterator[tuple[float, str, str, str]]:
    """The same of numbers that an optimizer puts on gradients itself."""
    scale = scale_of(optimizer)
    if scale is not None:
        what = "the loss scale of the optimizer"
        remedy = "Leave it out of the loss: the optimizer puts it on, and takes it off gradients."
        yield scale, f"{scale:g}", what, remedy
        yield 1 / scale, f"1/{scale:g}", f"one over {what}", remedy
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    steps = getattr(inner, "gradient_accumulation_steps", None)
    if steps:
        what = "the accumulation steps of the optimizer"
        remedy = "Leave it out of the loss: the optimizer takes the mean over the steps itself."
        yield 1 / steps, f"1/{steps}", f"one over {what}", remedy
        yield steps, f"{steps}", what, remedy
