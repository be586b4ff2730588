"""`PerGradMixin`: what makes a Keras model measure its own training."""

from __future__ import annotations

from typing import Any

import keras

from keras_pergrad import _keras
from keras_pergrad.equivalence import EquivalenceReport
from keras_pergrad.errors import PerGradError, TrainStepError
from keras_pergrad.models._measurement import Measurement
from keras_pergrad.models._settings import PerSample
from keras_pergrad.rows import plain_batch


class PerGradMixin(_keras.BuiltFromPlainBatches):
    """Put before a Keras model class, adds `compile(per_sample=...)`.

    With `per_sample=None`, the default, the model is plain Keras. Otherwise its training step
    computes sample gradients and checks that their mean is the batch gradient.

    Example:
        >>> import keras, keras_pergrad as pg
        >>> class Base(pg.PerGradMixin, keras.Model):
        ...     pass
    """

    _per_grad: Measurement | None = None
    plain_batch = staticmethod(plain_batch)

    @property
    def per_sample(self) -> PerSample | None:
        """The settings given to `compile`, or None."""
        measurement = self._per_grad
        return None if measurement is None or measurement.passing else measurement.settings

    @property
    def equivalence_report(self) -> EquivalenceReport | None:
        """The last report that `fit` made, or None."""
        return None if self._per_grad is None else self._per_grad.report

    def compile(self, *args: Any, per_sample: Any = None, **kwargs: Any) -> None:
        """Keras' `compile`, with `per_sample`.

        Args:
            *args: as `keras.Model.compile`.
            per_sample: None for plain Keras, True for the defaults, an engine's name, or a
                `PerSample`.
            **kwargs: as `keras.Model.compile`.

        Raises:
            TrainStepError: the model has a `train_step` of its own.
            PerGradError: a setting that does not exist.
        """
        settings = PerSample.of(per_sample)
        if not _keras.is_initialized(self):
            raise PerGradError(
                "`super().__init__()` was not called, without which a Keras model is none. Call it "
                f"first in `__init__`. Received: a {type(self).__name__}."
            )
        if settings is not None:
            expect_our_train_step(self)
        super().compile(*args, **kwargs)
        self._per_grad = None if settings is None else Measurement(settings)

    def get_compile_config(self) -> dict[str, Any]:
        """Keras' configuration, with the settings where there are any."""
        config = super().get_compile_config()
        if config and self.per_sample is not None:
            config["per_sample"] = keras.saving.serialize_keras_object(self.per_sample)
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model and builds its optimizer, as Keras does for its own models."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Keras' training step, measured where `compile` was asked to."""
        if self._per_grad is None:
            return super().train_step(plain_batch(data))
        return self._per_grad.train_step(self, data)

    def test_step(self, data: Any) -> dict[str, Any]:
        """Keras' test step, of data that may have ids."""
        return super().test_step(plain_batch(data))

    def make_train_function(self, force: bool = False) -> Any:
        """Keras' train function; where measured, the host looks at the evidence after each call."""
        if self._per_grad is not None and self._per_grad.has_left:
            self._per_grad = self._per_grad.without_left()
            force = True
        measurement = self._per_grad
        if measurement is None:
            return super().make_train_function(force)
        if self.train_function is None or force:
            super().make_train_function(force)
            self.train_function = measurement.train_function(self, self.train_function)
        return self.train_function


def expect_our_train_step(model: keras.Model) -> None:
    """Refuses a model whose own training step would be called in place of the measuring one.

    A step in a subclass that calls `super().train_step(data)` reaches the measuring one.

    Raises:
        TrainStepError: with the way out.
    """
    for name in ("train_step", "make_train_function"):
        owner = _owner(model, name)
        if owner is not None:
            raise TrainStepError(
                f"{owner} defines its own `{name}`, which is called in place of the one that "
                "measures sample gradients. Move the loss into `compute_loss(self, x, y, y_pred, "
                f"sample_weight, training)` and delete `{name}`, or call `super().{name}` in a "
                "subclass, or compile with `per_sample=None`. "
                f"Received: model={model.name!r} of {type(model).__name__}.",
                causes=("own_train_step",),
            )


def _owner(model: keras.Model, name: str) -> str | None:
    """Whose own method stands before the measuring one or, below it, before Keras'; or None."""
    if name in vars(model):
        return f"The model {model.name!r} itself"
    classes = type(model).__mro__
    measuring = classes.index(PerGradMixin) if PerGradMixin in classes else -1
    for place, cls in enumerate(classes):
        if _keras.is_keras_own(cls):
            return None
        method = vars(cls).get(name)
        if method is None or place == measuring:
            continue
        names = set(getattr(getattr(method, "__code__", None), "co_names", ()))
        if place > measuring or not {"super", name} <= names:
            return cls.__name__
    return None
