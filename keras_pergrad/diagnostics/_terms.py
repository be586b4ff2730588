"""The terms of all diagnostics of a step, in one array."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from keras_pergrad.diagnostics._diagnostic import Diagnostic
from keras_pergrad.diagnostics._step import Seen


class Terms:
    """Where the terms of each diagnostic are among the `K` of all.

    Args:
        diagnostics: in whose order they come.

    Attributes:
        diagnostics: these.
        count: `K`.
    """

    def __init__(self, diagnostics: Sequence[Diagnostic]):
        self.diagnostics = list(diagnostics)
        ends = list(accumulate(each.num_terms for each in self.diagnostics))
        self.count = ends[-1] if ends else 0
        starts = [0, *ends[:-1]]
        self._places = {
            each.key: slice(start, end)
            for each, start, end in zip(self.diagnostics, starts, ends, strict=True)
        }
        self._starts = np.array(starts, int)
        sizes = [each.num_terms for each in self.diagnostics]
        self._owner = np.repeat(np.arange(len(sizes)), sizes)
        self.largest = np.repeat([each.largest for each in self.diagnostics], sizes)

    def of(self, seen: Seen) -> np.ndarray | None:
        """The terms of a step, `[K, G]`, NaN where groups have none; None without a sample."""
        if not seen.size:
            return None
        found = np.full([self.count, len(seen.parameters)], np.nan)
        with np.errstate(all="ignore"):
            for each in self.diagnostics:
                place = self._places[each.key]
                if each.of_model_alone:
                    found[place, 0] = each.terms(seen)[:, 0]
                else:
                    found[place] = each.terms(seen)
        return found

    def at(self, key: str, terms: np.ndarray) -> np.ndarray:
        """One diagnostic's of `terms [K, …]`."""
        return terms[self._places[key]]

    def by_diagnostic(self, terms: np.ndarray) -> dict[str, list[float]]:
        """Diagnostic → its terms, of `terms [K]`."""
        return {key: terms[place].tolist() for key, place in self._places.items()}

    def joined(self, by_diagnostic: dict[str, list[float]]) -> np.ndarray:
        """The terms `[K]` that were told apart by diagnostic; NaN for what is not there, or is of
        another number, as in a file that another version wrote."""
        found = np.full(self.count, np.nan)
        for key, place in self._places.items():
            terms = by_diagnostic.get(key, [])
            if len(terms) == place.stop - place.start:
                found[place] = terms
        return found

    def known(self, terms: np.ndarray) -> np.ndarray:
        """Which of `terms [K]` count, `[K]`: a ratio of means needs all of it of the same steps."""
        finite = np.isfinite(terms)
        whole = np.logical_and.reduceat(finite, self._starts)[self._owner]
        return np.where(self.largest, finite, whole)

    def values(
        self, terms: np.ndarray, names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Number → `[n]`, of `terms [K, n]`; all, or those of some names."""
        found: dict[str, np.ndarray] = {}
        for each in self.diagnostics:
            if names is None or not set(names).isdisjoint(each.names):
                columns = each.values(terms[self._places[each.key]])
                found.update(zip(each.names, columns, strict=True))
        return found if names is None else {name: found[name] for name in names}


class Window:
    """The model's terms of several steps, put together.

    Args:
        terms: where those of each diagnostic are.
    """

    def __init__(self, terms: Terms):
        self._terms = terms
        self._together = np.where(terms.largest, -np.inf, 0.0)
        self._counts = np.zeros(terms.count)

    def add(self, terms: np.ndarray) -> None:
        """Takes in `terms [K]`. A diagnostic with one that is not finite is left out whole."""
        known = self._terms.known(terms)
        new = np.where(known, terms, 0.0)
        largest = np.maximum(self._together, np.where(known, terms, -np.inf))
        self._together = np.where(self._terms.largest, largest, self._together + new)
        self._counts += known

    @property
    def terms(self) -> np.ndarray:
        """`[K]`, averaged or the largest; NaN for none."""
        by = np.where(self._terms.largest, 1.0, np.maximum(self._counts, 1))
        return np.where(self._counts > 0, self._together / by, np.nan)

    def values(self, names: Sequence[str] | None = None) -> dict[str, float]:
        """Number → value."""
        found = self._terms.values(self.terms[:, None], names)
        return {name: float(column[0]) for name, column in found.items()}
