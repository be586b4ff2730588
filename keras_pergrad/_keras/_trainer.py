"""A model's forward pass and loss, as `Trainer.train_step` runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras.src.losses import loss as keras_loss

from keras_pergrad._keras._layers import layers_of


def forward(model: keras.Model, x: Any, training: bool) -> Any:
    """Calls the model; passes `training` only where its `call` takes it."""
    return model(x, training=training) if model._call_has_training_arg else model(x)


def compute_loss(
    model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
) -> tf.Tensor:
    """The user's scalar; allows a `compute_loss` without a `training` argument."""
    return model._compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
    )


def steps_taken(optimizer: keras.Optimizer) -> int:
    """How many gradients an optimizer was given; with accumulation, more than its updates.

    Its public `iterations` are updates. A step that loss scaling skipped is in neither.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return int(optimizer._iterations.numpy())


def track_loss(model: keras.Model, loss: tf.Tensor, size: tf.Tensor) -> None:
    """Feeds the `loss` metric as `TensorFlowTrainer.train_step` does."""
    unscaled = keras_loss.unscale_loss_for_distribution(loss)
    model._loss_tracker.update_state(unscaled, sample_weight=size)


@contextlib.contextmanager
def losses_replaced(model: keras.Model, losses: list[tf.Tensor]) -> Iterator[None]:
    """Makes `model.losses` answer `losses`: the list that the JAX trainer fills, too."""
    outer = model._losses_override
    object.__setattr__(model, "_losses_override", list(losses))
    try:
        yield
    finally:
        object.__setattr__(model, "_losses_override", outer)


def added_losses(model: keras.Model) -> list[tf.Tensor]:
    """What the run in progress gave to `add_loss`, without the weights' regularizers."""
    return [loss for layer in layers_of(model) for loss in layer._get_own_losses()]


def layers_that_added(model: keras.Model) -> list[keras.Layer]:
    """The layer that gave each of `added_losses`."""
    return [layer for layer in layers_of(model) for _ in layer._get_own_losses()]


def loss_given(model: keras.Model) -> Any:
    """What `compile` was given as the loss; None if nothing."""
    return None if model._compile_loss is None else model._compile_loss._user_loss


def loss_objects(model: keras.Model) -> list[keras.Loss]:
    """The losses that `compile` resolved: all of them as one, and then one an output."""
    compiled = model._compile_loss
    if compiled is None:
        return []
    return [compiled, *(each.loss for each in compiled._flat_losses or [])]


def losses_of(model: keras.Model) -> list[keras.Loss]:
    """The losses that `compile` was given or has made of it, each once; also before a first run."""
    given = keras.tree.flatten(loss_given(model))
    found = [each for each in given if isinstance(each, keras.Loss)] + loss_objects(model)[1:]
    return list({id(each): each for each in found}.values())


class CompiledLoss(NamedTuple):
    """One of the losses that `compile` resolved.

    Attributes:
        number: in the order in which Keras calls them, which is that of what `compile` was given.
        leaf: which of the predictions' leaves it is of; None where it is of several.
        name: of the output, or None.
        loss: the loss, which may be that of other outputs, too.
        call: how many losses before it are the same object.
    """

    number: int
    leaf: int | None
    name: str | None
    loss: keras.Loss
    call: int


def compiled_losses(model: keras.Model, y_pred: Any) -> list[CompiledLoss]:
    """The losses of some predictions, in Keras' order."""
    flat = keras.tree.flatten(y_pred)
    given = model._compile_loss._flat_losses if model._compile_loss is not None else None
    found: list[CompiledLoss] = []
    for number, each in enumerate(given or []):
        at = _leaf_at(each.path, y_pred, getattr(model, "output_names", None) or [])
        leaf = next((k for k, tensor in enumerate(flat) if tensor is at), None)
        call = sum(other.loss is each.loss for other in found)
        found.append(CompiledLoss(number, leaf, each.name and str(each.name), each.loss, call))
    return found


def _leaf_at(path: tuple, y_pred: Any, names: list[str]) -> Any:
    """What a path leads to; Keras calls the entries of a list by the names of the outputs."""
    if path and isinstance(path[0], str) and not isinstance(y_pred, dict):
        y_pred = dict(zip(names, keras.tree.flatten(y_pred), strict=False))
    for part in path:
        y_pred = y_pred[part]
    return y_pred


def output_names(model: keras.Model) -> list[str]:
    """The names of the outputs, or what their losses call them; empty where they have none."""
    names = getattr(model, "output_names", None)
    if names:
        return list(names)
    flat = model._compile_loss._flat_losses if model._compile_loss is not None else None
    return [str(each.name) for each in flat or [] if each.name]
