"""What Keras builds a model from before any step: a batch that may carry ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

SYMBOLIC_BUILD = "_symbolic_build"  # of Keras 3.15, called under a strategy and by `*_on_batch`


class BuiltFromPlainBatches:
    """For a mixin before a Keras model: it is built from batches as `plain_batch` gives them."""

    plain_batch: Callable[[Any], Any]

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        batch = None if data_batch is None else type(self).plain_batch(data_batch)
        super()._symbolic_build(iterator=iterator, data_batch=batch)  # type: ignore[misc]


def build_from_plain_batches(model: keras.Model, plain_batch: Callable[[Any], Any]) -> Callable:
    """The same for one model: what is to take the place of its method `SYMBOLIC_BUILD`."""

    def build(iterator: Any = None, data_batch: Any = None) -> None:
        batch = None if data_batch is None else plain_batch(data_batch)
        type(model)._symbolic_build(model, iterator=iterator, data_batch=batch)

    return build
