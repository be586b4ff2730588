"""Terms that no sample owns: regularizers, and `add_loss` of weights alone. No error."""

from __future__ import annotations

from collections.abc import Iterator

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence.causes.instruments import Case, norm

KIND = "batch_term"


def batch_term(case: Case) -> Iterator[Cause]:
    """A note on those terms, where there are any."""
    regularized = [variable.path for variable in case.run.penalized]
    free = [term.where for term in case.terms if term.kind == "free"]
    if not regularized and not free:
        return
    size, whole = norm(case.batch_term), norm(case.difference.mean)
    share = f", {size / whole:.2g} of the norm of the samples' mean" if whole else ""
    because = (
        f"A term of the loss depends on weights alone; its gradient has norm {size:.3g}{share}. It "
        "is in the batch gradient once, and in no sample gradient."
    )
    remedy = "Nothing is wrong. `per_sample_gradients(...).batch_term` has it apart."
    for where in dict.fromkeys([*free, *regularized]):
        yield Cause(KIND, where, because, remedy)
