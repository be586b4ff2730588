"""`attach`: measuring an existing compiled model, whose class and saved file stay what they are."""

from __future__ import annotations

import types
from typing import Any

import keras

from keras_pergrad import _keras
from keras_pergrad.equivalence import EquivalenceReport
from keras_pergrad.errors import PerGradError
from keras_pergrad.models._measurement import Measurement
from keras_pergrad.models._mixin import PerGradMixin, expect_our_train_step
from keras_pergrad.models._settings import PerSample
from keras_pergrad.rows import plain_batch

_MEASUREMENT = "_per_grad"
_METHODS = ("train_step", "test_step", "make_train_function", _keras.SYMBOLIC_BUILD)


class Attachment:
    """A model that is measured until `detach`; also a context manager that detaches at its end.

    Attributes:
        model: the model.
        settings: what is measured.
    """

    def __init__(self, model: keras.Model, measurement: Measurement):
        self.model = model
        self._measurement = measurement

    @property
    def settings(self) -> PerSample:
        """What is measured."""
        return self._measurement.settings

    @property
    def equivalence_report(self) -> EquivalenceReport | None:
        """The last report that `fit` made, or None."""
        return self._measurement.report

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *error: Any) -> None:
        detach(self.model)


def attach(model: keras.Model, per_sample: Any = True) -> Attachment:
    """Makes an existing compiled model measure its training.

    Args:
        model: a compiled `keras.Model` of any class.
        per_sample: as in `PerGradModel.compile`.

    Returns:
        A handle that has the last report. Used in a `with` statement, it detaches at the end.

    Raises:
        PerGradError: the model is not compiled, is attached already, or is a `PerGradModel`.
        TrainStepError: the model has a `train_step` of its own.

    Example:
        >>> import keras, keras_pergrad as pg
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> handle = pg.attach(model)
        >>> pg.detach(model)
    """
    settings = PerSample.of(per_sample)
    _expect_attachable(model)
    if settings is None:
        raise PerGradError("`attach` measures; to stop, call `detach`. Received: per_sample=None.")
    expect_our_train_step(model)
    measurement = Measurement(settings)
    bind(model, measurement)
    return Attachment(model, measurement)


def bind(model: keras.Model, measurement: Measurement) -> None:
    """Puts measuring methods before those of the model's class."""
    build = _keras.build_from_plain_batches(model, plain_batch)
    methods = (_train_step, _test_step, _make_train_function)
    bound = [*(types.MethodType(method, model) for method in methods), build]
    model.__dict__.update(zip(_METHODS, bound, strict=True))
    model.__dict__[_MEASUREMENT] = measurement
    model.train_function = None


def measurement_of(model: keras.Model) -> Measurement | None:
    """What measures the model, attached or its own; None if nothing does."""
    if isinstance(model, PerGradMixin):
        return model._per_grad
    return model.__dict__.get(_MEASUREMENT)


def detach(model: keras.Model) -> None:
    """Undoes `attach`; does nothing for a model that is not attached."""
    if "train_step" not in model.__dict__ or _MEASUREMENT not in model.__dict__:
        return
    for name in (_MEASUREMENT, *_METHODS):
        del model.__dict__[name]
    model.train_function = None


def _expect_attachable(model: Any) -> None:
    if isinstance(model, PerGradMixin):
        raise PerGradError(
            "This model measures itself: give `per_sample` to its `compile`. "
            f"Received: a {type(model).__name__}."
        )
    if not isinstance(model, keras.Model) or not model.compiled:
        raise PerGradError(
            "`attach` needs a compiled keras.Model: call `model.compile(...)` first. "
            f"Received: {type(model).__name__}."
        )
    if _MEASUREMENT in model.__dict__:
        raise PerGradError(
            "The model is attached already: call `detach(model)` before another `attach`. "
            f"Received: model={model.name!r}."
        )


def _train_step(model: keras.Model, data: Any) -> dict[str, Any]:
    return model.__dict__[_MEASUREMENT].train_step(model, data)


def _test_step(model: keras.Model, data: Any) -> dict[str, Any]:
    return type(model).test_step(model, plain_batch(data))


def _make_train_function(model: keras.Model, force: bool = False) -> Any:
    measurement = model.__dict__[_MEASUREMENT]
    if measurement.has_left:
        model.train_function = None
        if measurement.without_left() is None:
            detach(model)
            return model.make_train_function(force)
    if model.train_function is None or force:
        type(model).make_train_function(model, force)
        model.train_function = measurement.train_function(model, model.train_function)
    return model.train_function
