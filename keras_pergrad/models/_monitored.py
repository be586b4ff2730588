"""Monitors of a model: they come for one `fit`, and leave nothing behind."""

from __future__ import annotations

import keras

from keras_pergrad.diagnostics import Monitor
from keras_pergrad.models._attach import bind, detach, measurement_of
from keras_pergrad.models._measurement import Measurement
from keras_pergrad.models._mixin import PerGradMixin, expect_our_train_step
from keras_pergrad.models._settings import PerSample


def start_monitoring(model: keras.Model, monitor: Monitor) -> None:
    """Lets a monitor measure a model; one without measuring settings is measured for it alone.

    Raises:
        TrainStepError: the model has a training step of its own.
    """
    measurement = measurement_of(model)
    if measurement is None:
        expect_our_train_step(model)
        measurement = Measurement(PerSample(check="off"), passing=True)
        if isinstance(model, PerGradMixin):
            model._per_grad = measurement
        else:
            bind(model, measurement)
    if monitor not in measurement.monitors:
        measurement.monitors.append(monitor)
    model.train_function = None


def stop_monitoring(model: keras.Model, monitor: Monitor) -> None:
    """Undoes that; does nothing where the monitor does not measure the model."""
    measurement = measurement_of(model)
    if measurement is None or monitor not in measurement.monitors:
        return
    measurement.monitors.remove(monitor)
    if measurement.passing and not measurement.monitors:
        if isinstance(model, PerGradMixin):
            model._per_grad = None
        else:
            detach(model)
    model.train_function = None
