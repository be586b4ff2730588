"""What a check found, for people and for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table

from keras_pergrad._text import render
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence._tolerance import Tolerance
from keras_pergrad.errors import PerGradError

# Causes that hold what is left without having undone it, and what rounding makes.
DOUBTFUL = ("precision", "unexplained", "randomness", "state", "non_finite")


@dataclass(frozen=True)
class Finding:
    """One of the tests that a verdict rests on.

    Attributes:
        passed: its result.
        error: what was measured, relative.
        limit: the largest error that passes.
        text: what it says in words.
        asked: whether it could be made; one that could not has passed.
    """

    passed: bool
    error: float
    limit: float
    text: str
    asked: bool = True


@dataclass(frozen=True)
class VariableRow:
    """The two gradients of one variable; norms are Euclidean, over the variable's entries.

    Attributes:
        path: of the variable.
        shape: of the variable.
        batch_norm: norm of the batch gradient.
        mean_norm: norm of the mean of the sample gradients, plus the batch term.
        absolute_error: norm of their difference.
        relative_error: that over `batch_norm`; 0 where both are zero.
        cosine: between the two; NaN where one is zero.
        passed: whether the difference is within the tolerance.
    """

    path: str
    shape: tuple[int, ...]
    batch_norm: float
    mean_norm: float
    absolute_error: float
    relative_error: float
    cosine: float
    passed: bool


def _nothing_kept(path: Any, report: dict[str, Any]) -> None:
    raise PerGradError(
        "This report has no batch to be reproduced from: only one of a check that failed has, made "
        "by `check_equivalence`, or by `fit` of rows that are neither ragged nor sparse. "
        f"Received: path={path!r}."
    )


@dataclass(frozen=True)
class EquivalenceReport:
    """Whether the mean of the samples' own gradients is the batch gradient, with the evidence.

    Attributes:
        equivalent: the verdict: all three tests passed.
        mean: the mean identity, over all variables together.
        oracle: a few samples' gradients against `loop`'s.
        coupling: whether a sample notices what the others are.
        rows: one a variable.
        max_relative_error: `‖mean + R - batch‖ / ‖batch‖`, over all variables.
        tolerance: how much rounding may do, and why that much.
        engine: the engine whose gradients were judged.
        num_samples: `B`.
        non_finite: how many samples have a gradient with NaN or Inf.
        non_finite_indices: the first of them.
        contributions: where the verdict is no: whether the contributions `B ∇c_i`, with the
            batch's own denominators, add up to the batch gradient all the same; else None.
        tie_breaker: what a run in float64 said where the result was near the tolerance, or None.
        causes: why the two differ; empty when equivalent.
        notes: what is no error and good to know: terms that no sample owns, weights without a
            gradient, replayed noise, a `train_step` of the model's own.
        remainder: the part of the difference that no cause explains; None where none was looked at.
        explained_on: how many samples the causes were looked for in.
        unconnected: path → reason of the weights that no gradient reaches.
        remarks: what else was noticed.
        reproduction: what `save` calls with the path and the report as a dict.
        step: the training step, for a check made in `fit`, else None.
    """

    equivalent: bool
    mean: Finding
    oracle: Finding
    coupling: Finding
    rows: list[VariableRow]
    max_relative_error: float
    tolerance: Tolerance
    engine: str
    num_samples: int
    non_finite: int = 0
    non_finite_indices: list[int] = field(default_factory=list)
    contributions: str | None = None
    tie_breaker: str | None = None
    causes: list[Cause] = field(default_factory=list)
    notes: list[Cause] = field(default_factory=list)
    remainder: float | None = None
    explained_on: int | None = None
    step: int | None = None
    unconnected: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    reproduction: Callable[[Any, dict[str, Any]], None] = field(
        default=_nothing_kept, repr=False, compare=False
    )

    @property
    def is_near(self) -> bool:
        """Whether rounding may have made the verdict.

        An error is close to the tolerance; or one of any size is found where no sample notices the
        others: a number that is rounded to the other side of a kink (ReLU, maximum) makes such.
        """
        findings = (self.mean, self.oracle, self.coupling)
        failed_rows = any(not row.passed for row in self.rows)
        near = any(self.tolerance.near(finding.error) for finding in findings)
        near |= failed_rows and self.mean.error < 1e-2
        return self.non_finite == 0 and (near or (not self.equivalent and self.coupling.passed))

    @property
    def is_accounted_for(self) -> bool:
        """Whether there is a difference, and all of it goes if its causes are undone."""
        if self.remainder is None or not self.causes:
            return False
        doubtful = any(cause.explains is None or cause.kind in DOUBTFUL for cause in self.causes)
        return not doubtful and abs(self.remainder) <= 1e-2

    def save(self, path: Any) -> None:
        """Writes a zip file that reproduces a check that failed: model, batch, report, a script.

        Raises:
            PerGradError: the report is of no batch that was kept (it passed, or was made in `fit`
                of ragged or sparse rows), or Keras cannot save the model.
        """
        self.reproduction(path, self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers, strings, lists and dicts, as JSON holds them."""
        plain = dataclasses.replace(self, reproduction=_nothing_kept)
        found = dataclasses.asdict(plain)
        del found["reproduction"]
        return found

    def __str__(self) -> str:
        return render(
            self._headline(), self._tests(), self._variables(), *self._lines(), *self._causes()
        )

    def _headline(self) -> str:
        where = "" if self.step is None else f" at training step {self.step}"
        verdict = "is" if self.equivalent else "is NOT"
        return (
            f"The mean of the {self.num_samples} sample gradients {verdict} the batch "
            f"gradient{where} (engine {self.engine!r})."
        )

    def _tests(self) -> Table:
        table = Table("test", "", "error", "limit", "what it says", box=box.SIMPLE_HEAD)
        named = {"mean": self.mean, "oracle": self.oracle, "coupling": self.coupling}
        for name, finding in named.items():
            mark = ("pass" if finding.passed else "FAIL") if finding.asked else "–"
            table.add_row(name, mark, _short(finding.error), _short(finding.limit), finding.text)
        return table

    def _variables(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("variable", overflow="fold")
        for name in ("shape", "‖batch‖", "‖mean‖", "error", "relative", "cosine", ""):
            table.add_column(name, justify="right")
        for row in self.rows:
            numbers = (row.batch_norm, row.mean_norm, row.absolute_error, row.relative_error)
            shape = "×".join(map(str, row.shape)) or "scalar"
            mark = "" if row.passed or self.non_finite else "FAIL"
            cosine = "" if row.cosine != row.cosine else f"{row.cosine:.6f}"
            table.add_row(_folded(row.path), shape, *map(_short, numbers), cosine, mark)
        return table

    def _lines(self) -> list[str]:
        lines = [
            f"Overall ‖mean + R - batch‖ / ‖batch‖ = {_short(self.max_relative_error)}; tolerance "
            f"{_short(self.tolerance.rtol)} because {self.tolerance.because}."
        ]
        if self.contributions:
            lines.append(self.contributions)
        if self.tie_breaker:
            lines.append(f"Tie-breaker: {self.tie_breaker}")
        if self.non_finite:
            shown = ", ".join(map(str, self.non_finite_indices))
            lines.append(f"NaN or Inf in {self.non_finite} sample gradients: sample {shown}.")
        noted = {note.where for note in self.notes if note.kind == "unconnected"}
        lines += [
            f"No gradient reaches {path!r}: {why}."
            for path, why in self.unconnected.items()
            if path not in noted
        ]
        lines += self.remarks
        return lines

    def _causes(self) -> list[RenderableType]:
        lines: list[RenderableType] = []
        for name, found in (("Cause", self.causes), ("Note", self.notes)):
            for cause in found:
                first, *rest = cause.lines()
                lines += [f"{name}: {first}", *rest]
        if self.remainder is not None and self.explained_on is not None:
            lines.append(
                f"Looked into on {self.explained_on} of the {self.num_samples} samples; "
                f"{self.remainder:.0%} of the difference remains unexplained."
            )
        return lines


def _folded(path: str, width: int = 36) -> str:
    """A path in lines of at most `width` characters, as far as its parts allow."""
    lines = [""]
    for part in path.replace("/", "/\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.3g}"
