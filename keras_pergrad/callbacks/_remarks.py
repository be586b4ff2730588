"""What a person is told of a training, once each."""

from __future__ import annotations

import math
import warnings

import keras
import numpy as np

from keras_pergrad.diagnostics import Condensed, MeasuredStep, SampleSums
from keras_pergrad.errors import PerGradWarning

CHANGES = ("loss_change_predicted", "loss_change")
_SEVERAL = 5  # measured steps, at least, that an epoch is judged by
_ALONE = "A batch of one tells nothing of noise: its noise scale is NaN."
_NON_FINITE = (
    "Some samples have NaN or Inf in their gradients. Norms are of the others; what takes the mean "
    "gradient is NaN, and left out of the epoch's numbers. They are rows"
)
_UNKNOWN = (
    "The samples' contributions cannot be told apart in this loss; what is measured are parts that "
    "do not add up to the update. `check_equivalence` says why."
)
_NOT_MEASURED = (
    "No step of an epoch was measured, so that its numbers are NaN: it is shorter than `every`. "
    "Give a smaller `every`."
)
_SKIPPED = (
    "Gradients overflowed in float16, and Keras skipped the update and made its loss scale "
    "smaller. Such steps have no record: their rows are not to blame."
)
_LOST = (
    "Steps have no record: under XLA there is room for a fixed number of samples between two looks "
    "of the host. Use smaller batches or `steps_per_execution`, or `jit_compile=False`."
)
_OVERSHOT = (
    "The updates of an epoch raised the loss of their own batches, though the gradients foretold "
    "that it falls: the loss curves within the length of a step. Try a smaller learning rate."
)
_NO_UPDATE = (
    "Gradients are accumulated, and the measured steps are never those that update: "
    "`loss_change` and what comes of it are of no step. Give an `every` without a factor in common."
)
_WEIGHTS = "Sample weights cannot be taken out of these gradients, and stay in them."
_NO_ROOM = (
    "There are more rows than `samples()` has room for; those that come now are left out. Give a "
    "larger `max_ids`, or rows ids."
)


class Remarks:
    """Warns of what makes numbers NaN or leaves rows out, the first time that it is seen."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def on(self, record: Condensed, samples: SampleSums) -> None:
        """Says what there is to say after a measured step."""
        if record.size < 2:
            self._once(_ALONE, record)
        wrong = record.non_finite.tolist()
        if wrong:
            where = f" {wrong[:5]}, first in {record.non_finite_in!r}."
            self._once(_NON_FINITE, record, where)
        if not record.known and not wrong:
            self._once(_UNKNOWN, record)
        if samples.left_out:
            self._once(_NO_ROOM, record, f" It is {samples.max_ids}.")

    def on_weights(self, reason: str) -> None:
        """Says that sample weights could not be taken out."""
        if reason:
            self._tell(_WEIGHTS, f"Received: unweighted=True, and {reason}.")

    def on_nothing(self, epoch: int, every: int) -> None:
        """Says that no step of an epoch was measured."""
        self._tell(_NOT_MEASURED, f"Received: epoch {epoch}, every={every}.")

    def on_accumulation(self, optimizer: keras.Optimizer, every: int, level: str) -> None:
        """Says that no measured step has an update, where that is so."""
        steps = getattr(optimizer, "gradient_accumulation_steps", None) or 1
        if level != "norms" and math.gcd(steps, every) > 1:
            received = f"Received: every={every}, gradient_accumulation_steps={steps}."
            self._tell(_NO_UPDATE, received)

    def on_epoch(self, epoch: int, change: dict[str, float], steps: int) -> None:
        """Says that the steps of an epoch were too long, given `CHANGES` of some of them."""
        predicted, found = (change.get(name, math.nan) for name in CHANGES)
        if predicted < 0 < found and steps >= _SEVERAL:
            numbers = f"{predicted:.3g} foretold and {found:.3g} found in {steps} measured steps"
            received = f"Received: epoch {epoch}, {numbers}."
            self._tell(_OVERSHOT, received)

    def on_no_room(self, samples: int) -> None:
        """Says that steps were lost."""
        self._tell(_LOST, f"Received: more than about {samples:,} samples.")

    def without_skipped(
        self, steps: list[MeasuredStep], optimizer: keras.Optimizer
    ) -> list[MeasuredStep]:
        """The steps but those that a loss scale has made overflow, whose losses are finite."""
        if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            return steps
        kept = [step for step in steps if not _overflowed(step)]
        if len(kept) < len(steps):
            first = next(step for step in steps if _overflowed(step))
            self._tell(_SKIPPED, f"Received: step {first.step} with {first.size} samples.")
        return kept

    def _once(self, text: str, record: Condensed, more: str = "") -> None:
        received = f"Received: step {record.step} with {record.size} samples."
        self._tell(text, received, more)

    def _tell(self, text: str, received: str, more: str = "") -> None:
        if text not in self._said:
            self._said.add(text)
            warnings.warn(f"{text}{more} {received}", PerGradWarning, stacklevel=3)


def _overflowed(step: MeasuredStep) -> bool:
    wrong = ~step.finite
    return bool(wrong.any() and np.isfinite(step.losses[wrong]).all())
