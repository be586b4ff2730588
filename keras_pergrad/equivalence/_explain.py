"""The whole story of one batch, for a model that is fine, too."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich import box
from rich.table import Table

from keras_pergrad import _keras
from keras_pergrad._text import render
from keras_pergrad.engines import DEFAULT_MEMORY_BUDGET, get_engine, sample_gradients
from keras_pergrad.equivalence._check import check_equivalence
from keras_pergrad.equivalence._once import Request
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.equivalence.causes import Case, minus, norm, notes_of
from keras_pergrad.errors import PerGradError
from keras_pergrad.runs import Batch, arrays_kept

# Name → (engine, which gradients, what it is).
_DEFINITIONS = {
    "isolated": ("loop", "own", "of the sample's loss, run alone"),
    "jacobian row": ("jacobian", "own", "of the sample's loss within the batched run"),
    "share": ("factored", "contribution", "what flows through the sample's own activations"),
}


@dataclass(frozen=True)
class Definition:
    """One of the three definitions of the gradient of a sample.

    Attributes:
        name, text: what it is.
        from_isolated: the largest relative distance of a sample's from its isolated gradient.
        from_batch: the relative distance of the mean from the samples' part of the batch gradient.
        refusal: why it does not exist here, or None.
    """

    name: str
    text: str
    from_isolated: float = float("nan")
    from_batch: float = float("nan")
    refusal: str | None = None


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; `print` shows it.

    Attributes:
        report: the check, with causes and notes.
        definitions: the three definitions, compared.
        weights: loss → `[n]`, how much each sample counts in it, 1 in a plain mean.
    """

    report: EquivalenceReport
    definitions: list[Definition]
    weights: dict[str, list[float]]

    def __str__(self) -> str:
        return render(str(self.report), self._definitions(), self._agreement(), self._weights())

    def _definitions(self) -> Table:
        table = Table(
            "gradient of a sample",
            "what it is",
            "from isolated",
            "mean from batch",
            title=f"The three definitions, on {self.report.explained_on} samples",
            box=box.SIMPLE_HEAD,
        )
        for each in self.definitions:
            numbers = (f"{each.from_isolated:.2g}", f"{each.from_batch:.2g}")
            table.add_row(each.name, each.refusal or each.text, *numbers)
        return table

    def _agreement(self) -> str:
        """Which of the definitions agree, and which add up."""
        limit = 100 * self.report.tolerance.rtol
        same = [each.name for each in self.definitions if each.from_isolated <= limit]
        sums = [each.name for each in self.definitions if each.from_batch <= limit]
        agree = f"Alike: {', '.join(same)}." if len(same) > 1 else "No two of them are known alike."
        return f"{agree} The mean is the batch gradient for: {', '.join(sums) or 'none'}."

    def _weights(self) -> Table:
        names = ("loss", "least", "median", "most")
        table = Table(*names, title="Weights, 1 in a mean", box=box.SIMPLE_HEAD)
        for name, weights in self.weights.items():
            known = [each for each in weights if np.isfinite(each)]
            numbers = (min(known), float(np.median(known)), max(known)) if known else ()
            table.add_row(name, *(f"{number:.4g}" for number in numbers))
        return table


@tf.autograph.experimental.do_not_convert
def explain(model: keras.Model, x: Any, y: Any = None, sample_weight: Any = None) -> Explanation:
    """Prints what the gradient of a batch is made of, and returns it.

    The verdict with its causes; which of the three definitions of a sample's gradient agree, and
    which of them add up to the batch gradient; the weight of each sample in each loss; what is
    random, what is state, and which terms belong to no sample. The model is left as it was.

    Args:
        model: any compiled Keras model; one without weights yet is built from the batch.
        x, y, sample_weight: one batch, as `fit` takes it; every leaf `[B, ...]`.

    Raises:
        PerGradError: the batch or the model cannot be used; the message says why.
    """
    report = check_equivalence(model, x, y, sample_weight, engine="factored")
    with arrays_kept(model), _keras.global_seed_made():
        found = _explained(report, model, Batch.of(x, y, sample_weight))
    print(found)
    return found


def _explained(report: EquivalenceReport, model: keras.Model, batch: Batch) -> Explanation:
    request = Request(model, batch, get_engine("factored"), None, DEFAULT_MEMORY_BUDGET, 0)
    case = Case.of(request, report)
    if report.equivalent:
        notes, remarks = notes_of(case)
        notes = [*report.notes, *(note for note in notes if note not in report.notes)]
        remarks = [*report.remarks, *remarks]
        report = dataclasses.replace(report, notes=notes, remarks=remarks, explained_on=case.size)
    return Explanation(report, [_compared(case, name) for name in _DEFINITIONS], _weights(case))


def _weights(case: Case) -> dict[str, list[float]]:
    """By the names of losses, with the output's number where two have one name."""
    names = [output.where for output in case.outputs]
    shown = [
        name if names.count(name) == 1 else f"{name}, output {k}" for k, name in enumerate(names)
    ]
    return {
        name: [float(w) for w in output.weights]
        for name, output in zip(shown, case.outputs, strict=True)
    }


def _compared(case: Case, name: str) -> Definition:
    engine, of, text = _DEFINITIONS[name]
    run = dataclasses.replace(case.run, of=of)
    try:
        g = sample_gradients(run, get_engine(engine), DEFAULT_MEMORY_BUDGET)
        each, mean = list(g.materialize().values()), g.mean()
        own = case.own if case.alone else each
    except PerGradError as error:
        return Definition(name, text, refusal=str(error).partition(" Received:")[0])
    distances = []
    for k in range(case.size):
        alone = [gradient[k] for gradient in own]
        apart = norm(minus([gradient[k] for gradient in each], alone))
        distances.append(apart / norm(alone) if norm(alone) else (np.inf if apart else 0.0))
    whole = norm(case.batch)
    from_batch = norm(minus(mean, case.batch)) / whole if whole else float("nan")
    from_isolated = max(distances) if case.alone else float("nan")
    return Definition(name, text, from_isolated, from_batch)
