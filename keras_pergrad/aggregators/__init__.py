"""From sample gradients to the one gradient that the optimizer is given."""

from __future__ import annotations

from keras_pergrad.aggregators._mean import Aggregator, Mean
from keras_pergrad.errors import PerGradError

_AGGREGATORS: dict[str, type[Aggregator]] = {"mean": Mean}


def get_aggregator(aggregator: str | Aggregator | None) -> Aggregator | None:
    """The aggregator of that name; None for the batch gradient.

    Raises:
        PerGradError: no aggregator has that name.
    """
    if aggregator is None or isinstance(aggregator, Aggregator):
        return aggregator
    if aggregator not in _AGGREGATORS:
        raise PerGradError(
            f"`aggregator` is None or one of {sorted(_AGGREGATORS)}. "
            f"Received: aggregator={aggregator!r}."
        )
    return _AGGREGATORS[aggregator]()


__all__ = ["Aggregator", "Mean", "get_aggregator"]
