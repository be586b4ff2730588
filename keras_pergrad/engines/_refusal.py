"""What is said where samples have no contributions, or none that can be told."""

from __future__ import annotations

from keras_pergrad.errors import SeparationError
from keras_pergrad.runs import Run, overrides_compute_loss


def no_contributions(run: Run, engine: str, *, finite: bool, ambiguous: bool) -> SeparationError:
    """The refusal.

    Args:
        run: the run.
        engine: the name of the engine that gave its gradients.
        finite: whether all gradients of the samples are.
        ambiguous: whether they add up to the batch gradient in more than one way.
    """
    own = overrides_compute_loss(run.model)
    who = "the model's `compute_loss`" if own else "a loss function, or a term of `add_loss`,"
    way_out = ""
    causes: tuple[str, ...] = ("loss_normalization", "sample_interaction")
    if not finite:
        why = (
            f"A sample's gradient is not finite, and {who} reduces the loss, so that the samples' "
            "contributions cannot be told"
        )
        causes = ("non_finite",)
    elif ambiguous:
        why = (
            "The gradients of the samples add up to the batch gradient both as a mean and as a "
            f"sum, and {who} reduces the loss, so that a sample's contribution is not known"
        )
        causes = ("loss_scale",)
    elif run.is_opaque:
        why = (
            "The gradients of the samples add up to the batch gradient neither as a mean nor as a "
            f"sum, and {who} reduces the loss, so that a sample's contribution is not known"
        )
        way_out = " Let it give one number a sample, and a keras.losses.Loss take their mean."
    else:
        why = (
            "The gradients of the samples do not add up to the batch gradient: the samples "
            "meet in the model or in the loss, or are something else in a batch than alone, and "
            "none has a contribution of its own"
        )
        causes = ("sample_interaction",)
        if engine != "jacobian":
            way_out = " Use engine='jacobian' where the model interacts."
    return SeparationError(
        f"{why}.{way_out} With of='own' you get each sample's own gradient. "
        f"Received: of='contribution', engine={engine!r}.",
        causes=causes,
    )
