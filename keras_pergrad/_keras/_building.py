"""What is built from the shapes of a batch, before a model can train."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
from keras.src.backend import compute_output_spec

from keras_pergrad._keras._layers import layers_of


def build_for(model: keras.Model, x: Any, y: Any, sample_weight: Any) -> None:
    """Builds an unbuilt model, its loss and its metrics from the shapes of a batch."""
    model._symbolic_build(data_batch=(x, y, sample_weight))


def build_for_training(model: keras.Model, x: Any) -> None:
    """Builds the layers that only a training step runs, from the shapes of a batch."""
    if all(layer.built for layer in layers_of(model)) or not model._call_has_training_arg:
        return

    with contextlib.suppress(RuntimeError):  # a model that cannot be built so builds when it runs
        compute_output_spec(model, _specs(x), training=True)


def build_loss(model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> None:
    """Builds what `compile(loss=...)` left to the first batch, from shapes alone."""
    if model._compile_loss is None or model._compile_loss.built:
        return

    x, y, y_pred, sample_weight = _specs((x, y, y_pred, sample_weight))
    compute_output_spec(model._compute_loss, x, y, y_pred, sample_weight=sample_weight)


def build_optimizer(model: keras.Model) -> None:
    """Makes the optimizer's variables before the training step is traced, which is so traced once.

    A `tf.function` that has made variables is traced again at its next call. Not where weights are
    still to be made: the optimizer has to know them all.
    """
    optimizer, built = model.optimizer, all(layer.built for layer in layers_of(model))
    if optimizer is not None and not optimizer.built and built:
        with model.distribute_strategy.scope():
            optimizer.build(model.trainable_variables)


def _specs(structure: Any) -> Any:
    """The shapes and dtypes of the leaves; None stays None."""
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else keras.KerasTensor(leaf.shape, leaf.dtype.name),
        structure,
    )
