"""What is kept of a measured step, and how it is written in a line of JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class OutlierRow:
    """A row of the data whose gradient stood out.

    Attributes:
        id: the row's, or its fingerprint.
        epoch, step: when.
        norm: `‖g_i‖`.
        z: how far `log ‖g_i‖` is above the median of its step, in units of 1.4826 MAD; of that of
            64 samples, the step's own and those before it, where a step has fewer.
        loss: of the sample; NaN where it was not computed.
        layer: the layer with the largest part of the gradient.
        contribution: `p_i/(B n2)`, the part of the update that it supplied; NaN at level `"norms"`.
        seen: how often it stood out.
    """

    id: int
    epoch: int
    step: int
    norm: float
    z: float
    loss: float
    layer: str
    contribution: float = math.nan
    seen: int = 1


@dataclass(frozen=True, eq=False)
class Record:
    """One measured step. Two are equal if all their numbers are, a NaN like another.

    Attributes:
        step: the number of training steps before it, since the optimizer was made.
        epoch: the epoch, from 0.
        size: the number of samples.
        learning_rate: of its update.
        values: number → value, for the model.
        groups: layer or variable → number → value.
        terms: diagnostic → what it adds to averages, `[k]`, for the model.
        noise: group → `[tr, G2]`, the model's under `"model"`.
        non_finite: ids of samples with NaN or Inf in their gradients.
        zero: how many samples have no gradient at all.
        rows: those that have come into the outlier table.
        known: whether the samples' contributions exist.
        histograms: `"log_norm"`, `"grad_cosine"` → how many samples are in each bin of `EDGES`.
        spread: of `log ‖g_i‖`, by which `z` was made: how many samples it is of, its size, and
            the middle.
        alike: ids of the two rows whose gradients are the most alike, at level `"full"`: near
            duplicates, if `grad_most_alike` is nearly 1.
        non_finite_in: the first layer with NaN or Inf in a sample's gradient.
    """

    step: int
    epoch: int
    size: int
    learning_rate: float
    values: dict[str, float]
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    terms: dict[str, list[float]] = field(default_factory=dict)
    noise: dict[str, list[float]] = field(default_factory=dict)
    non_finite: list[int] = field(default_factory=list)
    zero: int = 0
    rows: list[OutlierRow] = field(default_factory=list)
    known: bool = True
    histograms: dict[str, list[int]] = field(default_factory=dict)
    spread: list[float] = field(default_factory=list)
    alike: list[int] = field(default_factory=list)
    non_finite_in: str = ""

    def __eq__(self, other: object) -> bool:
        return self.to_json() == other.to_json() if isinstance(other, Record) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> str:
        """One line; NaN is null and infinity a string, as JSON has neither."""
        return json.dumps(_plain(dataclasses.asdict(self)), separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Record:
        """The record that `to_json` wrote.

        Raises:
            ValueError: it is no such line.
        """
        found = _with_nan(json.loads(line))
        if not isinstance(found, dict):
            raise ValueError(f"A record is a JSON object. Received: {type(found).__name__}.")
        try:
            return cls(**{**found, "rows": [OutlierRow(**row) for row in found["rows"]]})
        except (KeyError, TypeError) as error:
            raise ValueError(f"Not a record: {error}. Received: {line[:60]!r}.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_nan(each) for each in value]
    if value is None or value in ("inf", "-inf"):
        return math.nan if value is None else float(value)
    return value
