"""How much two exact computations of one gradient may differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_pergrad.errors import PerGradError

_DEFAULTS = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 2e-2, "float16": 3e-3}
_EPSILON = {"float64": 2.2e-16, "float32": 1.2e-7, "bfloat16": 7.8e-3, "float16": 9.8e-4}


def expect_rtol(rtol: Any) -> None:
    """Refuses what is no relative tolerance.

    Raises:
        PerGradError: it is neither None nor a positive number.
    """
    number = isinstance(rtol, (int, float)) and not isinstance(rtol, bool)
    if rtol is not None and not (number and 0 < rtol < float("inf")):
        raise PerGradError(
            "`rtol` is a positive number, or None for that of the dtype that the model computes "
            f"in. Received: rtol={rtol!r}."
        )


@dataclass(frozen=True)
class Tolerance:
    """The largest relative error that rounding explains.

    Attributes:
        rtol: of the whole gradient, relative to its scale over all variables. A variable of its
            own may differ by `10 rtol` of its own scale plus `rtol / 8` of the whole scale: a
            gradient that is zero by cancellation, as that of an attention's key bias, is noise
            of the whole.
        dtype: the coarsest dtype that the model computes in.
        because: why it is this number.
    """

    rtol: float
    dtype: str
    because: str

    @classmethod
    def of(cls, dtype: str, rtol: float | None = None) -> Tolerance:
        """The tolerance for models that compute in `dtype`, or the one that was asked for."""
        expect_rtol(rtol)
        if rtol is not None:
            return cls(rtol, dtype, "it was asked for")
        value = _DEFAULTS[dtype]
        times = value / _EPSILON[dtype]
        return cls(
            value,
            dtype,
            f"the coarsest dtype that the model computes in is {dtype}: {times:,.3g} times its "
            f"spacing of {_EPSILON[dtype]:.2g}, for sums taken in another order",
        )

    def near(self, error: float) -> bool:
        """Whether an error is so close to the tolerance that float64 should decide."""
        return self.rtol / 10 <= error <= 1000 * self.rtol
