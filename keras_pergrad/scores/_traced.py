"""A function of the samples' own gradients, traced once for each shape of batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import (
    DEFAULT_MEMORY_BUDGET,
    Engine,
    get_engine,
    per_sample_gradients,
    refusing,
)
from keras_pergrad.gradients import SampleGradients
from keras_pergrad.runs import Batch


@dataclass(frozen=True)
class How:
    """How sample gradients are computed.

    Attributes:
        engine, training, memory_budget: as of `per_sample_gradients`.
    """

    engine: str | Engine = "auto"
    training: bool = False
    memory_budget: int = DEFAULT_MEMORY_BUDGET


class Traced:
    """Answers NumPy arrays of what is made of each batch; its graphs are freed with it.

    Args:
        make: from sample gradients to a nest of tensors.
        model: whose.
        how: they are computed.
    """

    def __init__(self, make: Callable[[SampleGradients], Any], model: keras.Model, how: How):
        self._name = get_engine(how.engine).name

        def traced(*batch: Any) -> Any:
            made = make(per_sample_gradients(model, *batch, of="own", **vars(how)))
            _keras.forget_custom_gradients(tf.compat.v1.get_default_graph())
            return made

        self._function = _keras.compiled(traced, each_shape=True)

    def __call__(self, batch: Batch) -> Any:
        with _keras.graphs_freed_with(self), refusing(self._name, running=True):
            made = self._function(batch.x, batch.y, batch.sample_weight)
        return tf.nest.map_structure(lambda each: each.numpy(), made)
