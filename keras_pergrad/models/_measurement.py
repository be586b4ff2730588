"""What measuring a model needs between its training steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.diagnostics import Monitor, Probe
from keras_pergrad.engines import get_engine, refusing
from keras_pergrad.equivalence import EquivalenceReport
from keras_pergrad.errors import PerGradError
from keras_pergrad.models._frozen import as_asked, expect_allowed
from keras_pergrad.models._settings import PerSample
from keras_pergrad.models._train_step import measured_train_step
from keras_pergrad.models._watch import Watch
from keras_pergrad.rows import unpacked
from keras_pergrad.runs import trained_variables


class Measurement:
    """What a measured model holds besides Keras': its settings, evidence and last report.

    A plain object, so that neither Keras nor TensorFlow tracks or saves what is in it.

    Args:
        settings: of the check and the aggregator.
        passing: whether it is there for monitors alone, and goes with the last of them.
    """

    def __init__(self, settings: PerSample, *, passing: bool = False):
        self.settings, self.passing = settings, passing
        self.monitors: list[Monitor] = []
        self._watches: dict[tuple[int, ...], Watch] = {}
        self.report: EquivalenceReport | None = None

    def without_left(self) -> Measurement | None:
        """The same without monitors whose training never ended; None if it was there for them.

        An error in a callback, or an interrupt, ends a `fit` without telling its callbacks.
        """
        self.monitors[:] = [each for each in self.monitors if not each.is_left]
        return None if self.passing and not self.monitors else self

    @property
    def has_left(self) -> bool:
        """Whether a monitor's training never ended."""
        return any(each.is_left for each in self.monitors)

    def begin(self, model: keras.Model) -> Watch:
        """The variables that carry verdicts, made outside of the model's strategy.

        A model that its first batch builds is not built yet when the train function is made; then
        this is called while that function is traced. A model that has come to train other weights
        is watched anew.
        """
        variables = trained_variables(model)
        if not variables:
            raise PerGradError(
                "The model has no trainable weights, so there is nothing to take a gradient of. "
                "Set `trainable = True` on a layer, or compile with `per_sample=None`. "
                f"Received: model={model.name!r}."
            )
        key = tuple(map(id, variables))
        if key not in self._watches:
            replicas = model.distribute_strategy.num_replicas_in_sync
            with tf.init_scope():
                check = self.settings.equivalence_check()
                self._watches[key] = Watch(check, replicas, len(variables))
        return self._watches[key]

    def train_step(self, model: keras.Model, data: Any) -> dict[str, Any]:
        """The measured training step."""
        data, ids = unpacked(data)
        if not model.built:
            _build(model, data)
        _keras.build_for_training(model, keras.utils.unpack_x_y_sample_weight(data)[0])
        expect_allowed(model, self.settings)
        with _keras.graphs_freed_with(model), as_asked(model, self.settings):
            watch = self.begin(model)
            return measured_train_step(model, data, self.settings, watch, self._probes(model), ids)

    def _probes(self, model: keras.Model) -> list[Probe]:
        for monitor in self.monitors:
            monitor.probe.prepare(model)
        return [monitor.probe for monitor in self.monitors]

    def train_function(self, model: keras.Model, function: Callable) -> Callable:
        """Keras' train function, followed by a look at what was measured."""
        self._watches.clear()  # made anew after `compile`: the first step is a first one again
        if model.built and model.trainable_variables:
            self.begin(model)
            self._probes(model)
            _keras.build_optimizer(model)

        def measured(iterator: Any) -> Any:
            for monitor in self.monitors:
                monitor.before_call(model)
            try:
                with refusing(get_engine(self.settings.engine).name, running=True):
                    logs = function(iterator)
            except tf.errors.InvalidArgumentError:  # ours says more, if it was we who stopped
                self._after_step(model)
                raise
            self._after_step(model)
            for monitor in self.monitors:
                logs = monitor.after_call(model, logs)
            return logs

        return measured

    def _after_step(self, model: keras.Model) -> None:
        for watch in self._watches.values():
            with as_asked(model, self.settings):
                report = watch.look(model)
            self.report = report or self.report
            watch.act(report)


def _build(model: keras.Model, data: Any) -> None:
    """Builds a model from its first batch, as `fit` does under a strategy.

    Raises:
        PerGradError: Keras cannot build it without running it.
    """
    try:
        _keras.build_for(model, *keras.utils.unpack_x_y_sample_weight(data))
    except (RuntimeError, ValueError) as error:
        raise PerGradError(
            "The model has no weights yet, and Keras could not build it from the data. Call it "
            f"once on a batch, `model(x)`, before `fit`. Received: model={model.name!r}, unbuilt."
        ) from error
