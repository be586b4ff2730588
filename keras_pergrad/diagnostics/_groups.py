"""Groups of weights: the model, its layers, and the variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MODEL = "model"


@dataclass(frozen=True)
class Groups:
    """How numbers by variable are added up: for the model, its layers, and the variables.

    Attributes:
        names: of the groups; the first is the model.
        kinds: `"model"`, `"layer"` or `"variable"`, of each.
        matrix: `[V, G]`, 1 where a variable is in a group.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    matrix: np.ndarray

    @classmethod
    def of(cls, paths: Sequence[str], wanted: Sequence[str] = ("layer", "variable")) -> Groups:
        """The groups of weights with these paths, of which a layer's end with their own names.

        Args:
            paths: of the variables.
            wanted: which kinds beside the model.
        """
        layers = [path.rpartition("/")[0] for path in paths]
        names = [MODEL, *dict.fromkeys(layers), *paths]
        count = len(names) - 1 - len(paths)
        kinds = [MODEL, *["layer"] * count, *["variable"] * len(paths)]
        matrix = np.zeros([len(paths), len(names)])
        for k, layer in enumerate(layers):
            matrix[k, [0, 1 + names[1 : 1 + count].index(layer), 1 + count + k]] = 1.0
        kept = [k for k, kind in enumerate(kinds) if kind == MODEL or kind in wanted]
        return cls(tuple(names[k] for k in kept), tuple(kinds[k] for k in kept), matrix[:, kept])

    def places(self, kind: str) -> list[int]:
        """Where the groups of a kind are."""
        return [k for k, each in enumerate(self.kinds) if each == kind]
