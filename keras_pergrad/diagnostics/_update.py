"""What an update does to the loss, as the gradients foretell it and as it comes."""

from __future__ import annotations

import numpy as np

from keras_pergrad.diagnostics._diagnostic import Diagnostic
from keras_pergrad.diagnostics._step import Seen


class PredictedChange(Diagnostic):
    """`(1/B) Σ_i ⟨g_i, Δθ⟩` for the update `Δθ`: to first order the change of the batch's loss."""

    names = ("loss_change_predicted",)
    needs = frozenset({"squared_norms", "along_update"})
    num_terms = 1
    level = "standard"

    def terms(self, seen: Seen) -> np.ndarray:
        return seen.of_step["along_update"][None]


class LossChange(Diagnostic):
    """The change of the batch's loss with an update, and its ratio to what was predicted.

    A ratio well below 1 says that the loss curves within the length of a step; below 0, that the
    step has overshot. The same batch, and the same noise.
    """

    names = ("loss_change", "loss_change_ratio")
    needs = frozenset({"squared_norms", "along_update", "losses"})
    num_terms = 2
    level = "standard"
    of_model_alone = True

    def terms(self, seen: Seen) -> np.ndarray:
        before, after = seen.of_step["losses"]
        return np.array([seen.of_step["along_update"][:1], [after - before]])

    def values(self, terms: np.ndarray) -> np.ndarray:
        predicted, realised = terms
        moves = predicted != 0
        ratio = np.where(moves, realised / np.where(moves, predicted, 1.0), np.nan)
        return np.stack([realised, ratio])
