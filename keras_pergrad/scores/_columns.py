"""From what is measured of a batch to its columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_pergrad.diagnostics import ALIGNMENTS, MEAN_SQUARES, PROJECTIONS, SQUARED_NORMS, Groups


@dataclass(frozen=True)
class Measured:
    """What was measured of a batch.

    Attributes:
        losses: `[B]`.
        samples: primitive → `[B, V]`.
        mean_square: `‖ḡ‖²`, of the batch's mean.
        reference_square: `‖g_val‖²`.
        groups: of the weights.
    """

    losses: np.ndarray
    samples: dict[str, np.ndarray]
    mean_square: float
    reference_square: float
    groups: Groups

    def whole(self, name: str) -> np.ndarray:
        """A primitive of the model, `[B]`."""
        return self.samples[name].sum(axis=1)

    @property
    def by_layer(self) -> np.ndarray:
        """`‖g_i‖²` by layer, `[B, layers]`."""
        return self.samples[SQUARED_NORMS] @ self.groups.matrix[:, self.groups.places("layer")]


@dataclass(frozen=True)
class Column:
    """A score.

    Attributes:
        make: from what was measured to `[B]`, or to `[B, layers]` for a column of each layer.
        needs: the primitives that it is made of; the losses are always there.
    """

    make: Callable[[Measured], np.ndarray]
    needs: frozenset[str]


def layer_names(groups: Groups) -> list[str]:
    """The layers in the order of `Measured.by_layer`."""
    return [groups.names[k] for k in groups.places("layer")]


def needs_of(scores: Sequence[str]) -> frozenset[str]:
    """The primitives of some scores."""
    return frozenset().union(*(COLUMNS[name].needs for name in scores))


def _ratio(numerator: np.ndarray, denominator: np.ndarray | float) -> np.ndarray:
    """NaN, never infinite, where there is nothing to divide by."""
    below = np.broadcast_to(denominator, np.shape(numerator))
    return np.divide(numerator, below, out=np.full(np.shape(numerator), np.nan), where=below > 0)


def _norm(seen: Measured) -> np.ndarray:
    return np.sqrt(seen.whole(SQUARED_NORMS))


def _contribution(seen: Measured) -> np.ndarray:
    return _ratio(seen.whole(PROJECTIONS), len(seen.losses) * seen.mean_square)


def _cosine(seen: Measured) -> np.ndarray:
    return _ratio(seen.whole(PROJECTIONS), _norm(seen) * np.sqrt(seen.mean_square))


def _alignment_cosine(seen: Measured) -> np.ndarray:
    return _ratio(seen.whole(ALIGNMENTS), _norm(seen) * np.sqrt(seen.reference_square))


def _layer(seen: Measured) -> np.ndarray:
    """The place of the layer; names take its place at the end."""
    return seen.by_layer.argmax(axis=1)


LAYER_NORMS = "layer_norms"  # one score, of a column for each layer
_NORMS = frozenset({SQUARED_NORMS})
_PROJECTED = frozenset({SQUARED_NORMS, PROJECTIONS, MEAN_SQUARES})

COLUMNS: dict[str, Column] = {
    "loss": Column(lambda seen: seen.losses, frozenset()),
    "norm": Column(_norm, _NORMS),
    "squared_norm": Column(lambda seen: seen.whole(SQUARED_NORMS), _NORMS),
    "projection": Column(lambda seen: seen.whole(PROJECTIONS), frozenset({PROJECTIONS})),
    "contribution": Column(_contribution, _PROJECTED),
    "cosine": Column(_cosine, _PROJECTED),
    "alignment": Column(lambda seen: seen.whole(ALIGNMENTS), frozenset({ALIGNMENTS})),
    "alignment_cosine": Column(_alignment_cosine, frozenset({SQUARED_NORMS, ALIGNMENTS})),
    "layer": Column(_layer, _NORMS),
    LAYER_NORMS: Column(lambda seen: np.sqrt(seen.by_layer), _NORMS),
}


def columns_of(name: str, seen: Measured) -> dict[str, np.ndarray]:
    """A score's columns, name → `[B]`: one of its own name, or `norm/layer` for each layer."""
    values = COLUMNS[name].make(seen)
    if values.ndim == 1:
        return {name: values}
    return {f"norm/{layer}": values[:, k] for k, layer in enumerate(layer_names(seen.groups))}
