"""`EquivalenceCheck`: how often `fit` checks, what a failure does, how large an error may be."""

import keras
import pytest

import keras_pergrad as pg
from tests import planted
from tests.twins import data, dense

slow = pytest.mark.slow


def _model(check, engine="vectorized", way=None, **settings) -> keras.Model:
    model = dense(pg.PerGradModel, pg.PerGradSequential)
    settings = pg.PerSample(engine, check=check, **settings)
    model.compile("sgd", "mse", per_sample=settings, **(way or {}))
    return model


def _wrong(factor):
    return planted.Planted(planted.scaled_everywhere(factor))


class Steps(keras.callbacks.Callback):
    """The step of the newest report after every batch; None before the first."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        report = self.model.equivalence_report
        self.seen.append(None if report is None else report.step)


def _fit(model, *callbacks) -> keras.Model:
    x, y, _ = data()
    model.fit(x, y, batch_size=2, callbacks=[*callbacks], shuffle=False, verbose=0)  # 7 steps
    return model


@pytest.mark.parametrize(
    ("every", "steps"),
    [
        (3, [0, 0, 0, 3, 3, 3, 6]),
        (0, [None] * 7),
        pytest.param(1, [0, 1, 2, 3, 4, 5, 6], marks=slow),
        pytest.param("first", [0] * 7, marks=slow),
    ],
    ids=str,
)
def test_every_says_which_steps_are_checked(every, steps):
    heard = Steps()
    _fit(_model(pg.EquivalenceCheck(every=every)), heard)
    assert heard.seen == steps


@pytest.mark.parametrize(
    ("way", "steps"),
    [
        ({"run_eagerly": True}, [0, 0, 0, 3, 3, 3, 6]),
        ({"steps_per_execution": 2}, [0, 3, 3, 6]),
        pytest.param({"jit_compile": True}, [0, 0, 0, 3, 3, 3, 6], marks=slow),
    ],
    ids=["eager", "steps_per_execution", "xla"],
)
def test_every_third_step_is_checked_in_each_way_of_training(way, steps):
    heard = Steps()
    _fit(_model(3, way=way), heard)
    assert heard.seen == steps


def test_an_equivalence_check_brings_its_own_on_failure():
    """That of `PerSample` beside it, which says something else, is not asked."""
    with pytest.raises(pg.EquivalenceError):
        _fit(_model(pg.EquivalenceCheck(), _wrong(1.5), on_failure="record"))
    check = pg.EquivalenceCheck(on_failure="warn")
    with pytest.warns(pg.EquivalenceWarning, match="is NOT the batch"):
        _fit(_model(check, _wrong(1.5), on_failure="raise"))


@pytest.mark.parametrize(
    ("rtol", "passes"), [(0.02, True), (0.0005, False), pytest.param(None, False, marks=slow)]
)
def test_rtol_in_fit(rtol, passes):
    """The planted error is 1 %. A failure is recorded without a word: warnings are errors here."""
    check = pg.EquivalenceCheck(on_failure="record", rtol=rtol)
    report = _fit(_model(check, _wrong(1.01))).equivalence_report
    assert report.equivalent is passes
    assert report.tolerance.rtol == (1e-5 if rtol is None else rtol)
    assert report.mean.limit == report.tolerance.rtol
    assert ("it was asked for" in str(report)) is (rtol is not None)


@pytest.mark.parametrize(
    "options", [{"every": -1}, {"every": "last"}, {"every": True}, {"on_failure": "shout"}], ids=str
)
def test_what_is_no_check_is_refused(options):
    with pytest.raises(pg.PerGradError, match="Received"):
        pg.EquivalenceCheck(**options)


SETTINGS = pg.PerSample(
    "jacobian",
    check=pg.EquivalenceCheck(every=3, on_failure="warn", rtol=1e-4),
    aggregator="mean",
    memory_budget=12_345,
)


# What Keras itself says when it saves.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("functional", [True, False], ids=["functional", "sequential"])
def test_settings_survive_saving(tmp_path, functional):
    """None of them is at its default, so that none can be lost unseen."""
    model = dense(pg.PerGradModel, pg.PerGradSequential)
    if functional:
        model = pg.PerGradModel(model.inputs, model.outputs[0])
    model.compile("sgd", "mse", per_sample=SETTINGS)
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").per_sample == SETTINGS
