"""What to do about float16 gradients that over- or underflow: what the optimizer does already."""

from __future__ import annotations

import keras


def scale_of(optimizer: keras.Optimizer | None) -> float | None:
    """What an optimizer multiplies the loss by; None if it does not."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return float(optimizer.dynamic_scale if optimizer.built else optimizer.initial_scale)
    factor = getattr(optimizer, "loss_scale_factor", None)
    return float(factor) if factor else None


def scaling(model: keras.Model) -> str | None:
    """Who scales the loss, and by what; None where nobody does."""
    scale = scale_of(model.optimizer)
    if scale is None:
        return None
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        return f"The LossScaleOptimizer scales the loss by {scale:g} now"
    return f"The optimizer scales the loss by loss_scale_factor={scale:g}"


def against_overflow(model: keras.Model) -> str:
    """The remedy for gradients that overflow."""
    return _remedy(
        model,
        "Compile with a keras.optimizers.LossScaleOptimizer, or make the loss smaller.",
        "it leaves such a step out and halves the scale, so let it adapt, or give it a smaller "
        "`initial_scale`.",
        "smaller",
    )


def against_underflow(model: keras.Model) -> str:
    """The remedy for gradients that underflow."""
    return _remedy(
        model,
        "Compile with a keras.optimizers.LossScaleOptimizer.",
        "give it a larger `initial_scale`, or let it grow, by fewer `dynamic_growth_steps`.",
        "larger",
    )


def _remedy(model: keras.Model, nobody: str, adapting: str, way: str) -> str:
    """What to do where nobody scales the loss, where a scale adapts, and where it does not."""
    said = scaling(model)
    if said is None:
        return nobody
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        return f"{said}: {adapting}"
    return f"{said}: make that {way}, or use a keras.optimizers.LossScaleOptimizer, which adapts."
