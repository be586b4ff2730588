"""A copy of a model without the statistics of the batch."""

from __future__ import annotations

from typing import Any

import keras

from keras_pergrad.equivalence import layers_with_batch_statistics
from keras_pergrad.errors import PerGradError, UnsupportedError

MOST_GROUPS = 32
_OF_WEIGHTS = [
    f"{weight}_{what}"
    for weight in ("gamma", "beta")
    for what in ("initializer", "regularizer", "constraint")
]


def replace_batch_norm(model: keras.Model, groups: int | None = None) -> keras.Model:
    """A copy of a model with GroupNormalization in the place of each BatchNormalization.

    GroupNormalization (Wu and He 2018, arXiv:1803.08494) normalizes each sample by itself, so that
    samples do not interact. All weights are copied, also scale and offset; the model has to be
    trained on, as its activations are scaled otherwise.

    Args:
        model: a built functional or sequential model; layers nested in it are replaced, too.
        groups: of channels; by default the most of up to 32 that divide their number.

    Returns:
        The copy, compiled as the model is, if it is.

    Raises:
        PerGradError: the model is not built.
        UnsupportedError: the model has BatchNormalization where its layers cannot be exchanged, as
            in a subclass of the user's own.
    """
    if not model.built:
        raise PerGradError(
            "A model without weights has none to copy. Call it once on a batch, `model(x)`. "
            f"Received: model={model.name!r}, not built."
        )
    try:
        copy = _cloned(model, groups)
    except (ValueError, NotImplementedError) as error:
        raise _not_exchanged(model, str(error).strip().splitlines()[0]) from error
    left = [layer.path for layer in layers_with_batch_statistics(copy)]
    if left:
        raise _not_exchanged(model, f"BatchNormalization at {left[0]!r}")
    _copy_weights(model, copy)
    if model.compiled:
        copy.compile_from_config(model.get_compile_config())
    return copy


def _cloned(model: keras.Model, groups: int | None) -> keras.Model:
    """The model with other weights, and the layers exchanged, those of nested models too."""
    copy = _clone(model, groups)
    if not model.trainable:
        copy.trainable = False
    return copy


def _clone(model: keras.Model, groups: int | None) -> keras.Model:
    """The same, all of it trainable that its layers do not freeze."""

    def clone(layer: keras.Layer) -> keras.Layer:
        if isinstance(layer, keras.layers.BatchNormalization):
            return _group_normalization(layer, groups)
        if isinstance(layer, keras.Model):
            return _cloned(layer, groups)
        return layer.__class__.from_config(layer.get_config())

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.layers.GroupNormalization):
            kwargs = {key: kwargs[key] for key in kwargs if key not in ("mask", "training")}
        return layer(*args, **kwargs)

    if isinstance(model, keras.Sequential):
        return keras.models.clone_model(model, clone_function=clone)
    return keras.models.clone_model(model, clone_function=clone, call_function=call)


def _group_normalization(
    layer: keras.layers.BatchNormalization, groups: int | None
) -> keras.layers.GroupNormalization:
    channels = int(layer.moving_mean.shape[0])
    if groups is None:
        groups = next(g for g in range(min(MOST_GROUPS, channels), 0, -1) if channels % g == 0)
    if groups == channels and channels > 1 and _is_flat(layer):
        groups = 1  # one number a group would be normalized to zero
    return keras.layers.GroupNormalization(
        groups,
        axis=layer.axis,
        epsilon=layer.epsilon,
        center=layer.center,
        scale=layer.scale,
        name=layer.name,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
        **{name: getattr(layer, name) for name in _OF_WEIGHTS},
    )


def _is_flat(layer: keras.Layer) -> bool:
    """Whether it normalizes `[B, channels]`, with one number a channel and sample."""
    return layer.input_spec is None or layer.input_spec.ndim in (None, 2)


def _copy_weights(model: keras.Model, copy: keras.Model) -> None:
    """Layer by layer, in the order that both have; of a BatchNormalization scale and offset."""
    for old, new in zip(model.layers, copy.layers, strict=True):
        if isinstance(old, keras.layers.BatchNormalization):
            for name in ("gamma", "beta"):
                if getattr(old, name, None) is not None:
                    getattr(new, name).assign(getattr(old, name))
        elif isinstance(old, keras.Model):
            _copy_weights(old, new)
        else:
            new.set_weights(old.get_weights())


def _not_exchanged(model: keras.Model, why: str) -> UnsupportedError:
    return UnsupportedError(
        "BatchNormalization can be exchanged in functional and sequential models, whose layers "
        "Keras knows. Use keras.layers.GroupNormalization in the model's own code, or freeze the "
        f"layers. Received: model={model.name!r} of type {type(model).__name__}: {why}.",
        causes=("sample_interaction",),
    )
