"""`PerGradModel`: subclass it, or call it with inputs and outputs, as `keras.Model`."""

from __future__ import annotations

from typing import Any

import keras

from keras_pergrad import _keras
from keras_pergrad.models._mixin import PerGradMixin


@keras.saving.register_keras_serializable("keras_pergrad")
class PerGradModel(PerGradMixin, keras.Model):
    """A `keras.Model` that can measure its own training.

    Functional, `PerGradModel(inputs, outputs)`; or subclassed, with `call` or in the functional
    style; in any order in one process. Keras gives a class that is used functionally other bases,
    for good, which would break every later subclass with a `call` (tf-keras issue 351). So
    functional use goes to a class of its own.

    Example:
        >>> import keras, keras_pergrad as pg
        >>> inputs = keras.Input((3,))
        >>> model = pg.PerGradModel(inputs, keras.layers.Dense(1)(inputs))
        >>> model.compile("sgd", "mse", per_sample=True)
    """

    def __new__(cls, *args, **kwargs):
        if cls is PerGradModel and _keras.functional_init_arguments(args, kwargs):
            cls = PerGradFunctional
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        if not _keras.functional_init_arguments(args, kwargs):
            super().__init__(*args, **kwargs)
            return
        _make_functional(type(self))
        _keras.Functional.__init__(self, *args, **kwargs)


@keras.saving.register_keras_serializable("keras_pergrad")
class PerGradFunctional(PerGradModel, _keras.Functional):
    """What `PerGradModel(inputs, outputs)` is an instance of."""


@keras.saving.register_keras_serializable("keras_pergrad")
class PerGradSequential(PerGradMixin, keras.Sequential):
    """A `keras.Sequential` that can measure its own training.

    Example:
        >>> import keras, keras_pergrad as pg
        >>> model = pg.PerGradSequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse", per_sample="loop")
    """

    _saved_settings: Any = None

    def get_config(self) -> dict[str, Any]:
        """Keras' configuration, with the settings of `compile` where there are any.

        Not in the compile configuration as elsewhere: `clone_model` gives that of every
        Sequential to a plain `keras.Sequential`.
        """
        config = super().get_config()
        if self.per_sample is not None:
            config["per_sample"] = keras.saving.serialize_keras_object(self.per_sample)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> PerGradSequential:
        """The model that `get_config` came from."""
        config = dict(config)
        settings = config.pop("per_sample", None)
        model = super().from_config(config, custom_objects)
        model.__dict__["_saved_settings"] = settings
        return model

    def get_compile_config(self) -> dict[str, Any]:
        """What a plain `keras.Sequential` can be compiled from, too."""
        return keras.Sequential.get_compile_config(self)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model, with the settings that it was saved with."""
        super().compile_from_config({**config, "per_sample": self._saved_settings})


def _make_functional(cls: type) -> None:
    """Puts `PerGradFunctional` in the place of `PerGradModel` below the user's own class only."""
    if issubclass(cls, PerGradFunctional):
        return
    for base in cls.__mro__:
        if PerGradModel in base.__bases__:
            base.__bases__ = tuple(
                PerGradFunctional if b is PerGradModel else b for b in base.__bases__
            )
            return
