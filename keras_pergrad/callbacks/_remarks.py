"""What a person is told of a training, once each."""

from __future__ import annotations

import warnings

from keras_pergrad.diagnostics import Record, SampleSums
from keras_pergrad.errors import PerGradWarning

_ALONE = "A batch of one tells nothing of noise: its noise scale is NaN."
_NON_FINITE = (
    "Some samples have NaN or Inf in their gradients. Norms are of the others; what takes the mean "
    "gradient is NaN, and left out of the epoch's numbers. They are rows"
)
_UNKNOWN = (
    "The samples' contributions cannot be told apart in this loss; what is measured are parts that "
    "do not add up to the update. `check_equivalence` says why."
)
_NO_ROOM = (
    "There are more rows than `samples()` has room for; those that come now are left out. Give a "
    "larger `max_ids`, or rows ids."
)


class Remarks:
    """Warns of what makes numbers NaN or leaves rows out, the first time that it is seen."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def on(self, record: Record, samples: SampleSums) -> None:
        """Says what there is to say after a measured step."""
        if record.size < 2:
            self._once(_ALONE, record)
        if record.non_finite:
            self._once(_NON_FINITE, record, f" {record.non_finite[:5]}.")
        if not record.known and not record.non_finite:
            self._once(_UNKNOWN, record)
        if samples.left_out:
            self._once(_NO_ROOM, record, f" It is {samples.max_ids}.")

    def _once(self, text: str, record: Record, more: str = "") -> None:
        if text not in self._said:
            self._said.add(text)
            received = f"Received: step {record.step} with {record.size} samples."
            warnings.warn(f"{text}{more} {received}", PerGradWarning, stacklevel=2)
