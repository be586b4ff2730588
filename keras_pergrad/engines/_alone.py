"""Models in which no sample can be run alone."""

from __future__ import annotations

from keras_pergrad.errors import UnsupportedError
from keras_pergrad.runs import Run, recurrent_layers


def why_not_alone(run: Run) -> str | None:
    """What has the batch's size built in, so that no sample can be run alone; None if nothing."""
    for layer in recurrent_layers(run.model):
        if layer.stateful:
            return f"the stateful recurrent layer {layer.path!r} keeps one state for each row"
    for tensor in getattr(run.model, "inputs", None) or []:
        if tensor.shape[0] not in (None, 1):
            return f"the input {tensor.name!r} is built for a batch of {tensor.shape[0]}"
    return None


def expect_samples_alone(run: Run, engine: str) -> None:
    """Refuses models that have the batch's size built in.

    Raises:
        UnsupportedError: names the layer, and the engine that runs the batch as it is.
    """
    reason = why_not_alone(run)
    if reason is not None:
        raise UnsupportedError(
            f"engine={engine!r} runs each sample as a batch of one, but {reason}. Use "
            f"engine='jacobian', which runs the batch as it is. Received: engine={engine!r}.",
            causes=("state",),
        )
