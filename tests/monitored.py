"""Trainings that are watched, and what was recorded of two of them compared."""

import keras
import numpy as np

import keras_pergrad as pg
from tests import oracle
from tests.twins import data, dense

Monitor = pg.callbacks.GradientMonitor
PLAIN = (keras.Model, keras.Sequential)


class Before(keras.callbacks.Callback):
    """Keeps all variables as they were before each training step."""

    def __init__(self):
        super().__init__()
        self.states = []

    def on_train_batch_begin(self, batch, logs=None):
        variables = {id(v): v for v in self.model.variables}
        self.states.append([(v, v.numpy()) for v in variables.values()])


def watched(make=dense, *, fit=None, level="full", monitor=None, classes=None, **options):
    """A model after `fit(model, callbacks)` with a monitor; that monitor; the history."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    model = make(*(classes or (pg.PerGradModel, pg.PerGradSequential)))
    options.setdefault("optimizer", keras.optimizers.SGD(0.05))
    options.setdefault("loss", "mse")
    model.compile(**options)
    monitor = Monitor(level, every=1, by_variable=True) if monitor is None else monitor
    history = (fit or in_order)(model, [monitor]).history
    return model, monitor, history


def in_order(model, callbacks):
    """Batches of four, the last of two, twice."""
    x, y, weight = data()
    options = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    return model.fit(x, y, sample_weight=weight, callbacks=callbacks, **options)


def shuffled(model, callbacks):
    x, y, weight = data()
    options = {"batch_size": 4, "epochs": 2, "verbose": 0, "validation_split": 0.25}
    return model.fit(x, y, sample_weight=weight, callbacks=callbacks, **options)


def expect_records_equal(one, other, rtol: float = 0.0, scale: float = 1.0) -> None:
    """The same steps, numbers, terms and rows, to `rtol`; NaN equals NaN."""
    one, other = list(one), list(other)
    assert [r.step for r in one] == [r.step for r in other]
    for a, b in zip(one, other, strict=True):
        assert (a.epoch, a.size, a.known, a.zero) == (b.epoch, b.size, b.known, b.zero)
        assert sorted(a.non_finite) == sorted(b.non_finite)
        for found, expected in zip(_numbers(a), _numbers(b), strict=True):
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(
                    found[name], value, rtol=rtol, atol=rtol * scale, err_msg=f"{a.step} {name}"
                )
        rows = [{row.id: row for row in r.rows} for r in (a, b)]
        assert rows[0].keys() == rows[1].keys()
        for key, row in rows[1].items():
            for name in ("norm", "loss", "contribution", "z"):
                found, expected = getattr(rows[0][key], name), getattr(row, name)
                np.testing.assert_allclose(found, expected, rtol=rtol, atol=10 * rtol * scale)


def _numbers(record) -> list[dict[str, object]]:
    """By layer in order, as names of models differ."""
    return [
        {"learning_rate": record.learning_rate},
        record.values,
        record.terms,
        *record.groups.values(),
        {str(k): terms for k, terms in enumerate(record.noise.values())},
    ]


def plainly(make=dense, *, fit=None, classes=None, **options):
    """The same training without a monitor: the model, and its history."""
    nothing = keras.callbacks.Callback()
    classes = classes or PLAIN
    model, _, history = watched(make, fit=fit, monitor=nothing, classes=classes, **options)
    return model, history


def expect_untouched(plain, found) -> None:
    """Weights, optimizer, statistics, seeds, metrics and history's own columns, to the last bit."""
    (model, history), (measured, measured_history) = plain, found
    for name in history:
        np.testing.assert_array_equal(history[name], measured_history[name], err_msg=name)
    left, right = oracle.state_of(model), oracle.state_of(measured)
    assert len(left) == len(right)
    for variable, a, b in zip(oracle.every_variable(model), left, right, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=variable.path)
