"""What a forward pass keeps: told from noise, noted where it is put back; and what is beside it."""

from collections import Counter

import keras
import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from tests.broken import BROKEN
from tests.broken.base import chain, dense, numbers
from tests.broken.kept import KEPT, Counting, InArray, InClass, counting
from tests.cases import nudge
from tests.figures.causes import wrongly_named
from tests.problems import compiled, floats


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_in_python_is_named(name):
    assert wrongly_named(KEPT[name], Counter()) == ""


def checked(build, batch=None, **options):
    model = build()
    nudge(model)
    return pg.check_equivalence(model, *(batch or numbers(5)()), **options)


def test_a_class_that_counts_is_named():
    [cause] = checked(counting(InClass)).causes
    assert (cause.kind, cause.where) == ("state", "InClass.calls")
    assert "'counting'" in cause.because


_calls = [0]


def _count() -> int:
    _calls[0] += 1
    return _calls[0]


def test_a_global_that_counts_is_named():
    [cause] = checked(counting(lambda: _count)).causes
    assert cause.kind == "state" and cause.where.endswith("test_causes_state._calls")


def test_of_two_that_count_each_is_named():
    build = chain(
        (5,),
        dense(4),
        *(lambda k=k: Counting(InArray, name=f"counting_{k}") for k in "ab"),
        dense(),
    )
    places = {cause.where for cause in checked(build).causes}
    assert places == {"counting_a.how", "counting_b.how"}


def test_looking_for_state_leaves_none():
    """The calls that tell state from noise work on copies."""
    from keras_pergrad.engines import get_engine
    from keras_pergrad.equivalence._once import Request
    from keras_pergrad.equivalence.causes import Case
    from keras_pergrad.runs import Batch

    model = counting(InArray)()
    report = pg.check_equivalence(model, *numbers(5)())
    batch = Batch.of(*numbers(5)())
    case = Case.of(Request(model, batch, get_engine("loop"), None, 2**30, 0), report)
    before = model.get_layer("counting").how.array.copy()
    assert case.calls is not None
    counted = model.get_layer("counting").how.array.copy()
    assert len(case.unsteady) == 1
    np.testing.assert_array_equal(model.get_layer("counting").how.array, counted)
    assert counted[0] == before[0] + 1  # a recorded pass is a call


class Attribute(keras.Layer):
    """Counts in attributes that every run puts back."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls, self.seen, self.last = 0, [], None

    def call(self, inputs):
        self.calls += 1
        self.seen.append(0)
        self.last = inputs  # written, and never read
        return inputs * (1 + 0.1 * self.calls + 0.1 * len(self.seen))


def test_attributes_that_are_put_back_are_noted():
    build = chain((5,), dense(4), lambda: Attribute(name="counting"), dense())
    found = pg.explain(build(), *numbers(5)())
    assert found.report.equivalent
    notes = [note.where for note in found.report.notes if note.kind == "state"]
    assert notes == ["counting.calls", "counting.seen"]


@pytest.mark.parametrize("name", ["noise of NumPy, beside batch normalization", "NaN in the data"])
def test_moving_statistics_are_no_state_beside_noise_or_nan(name):
    broken = BROKEN[name]
    build = broken.build
    if name == "NaN in the data":
        build = chain((5,), dense(4), layers.BatchNormalization, dense())
    report = checked(build, broken.batch(), engine=broken.engine)
    assert not report.equivalent
    assert [note for note in report.notes if note.kind == "state"] == []


class Remembers(keras.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.rnn = layers.LSTM(4, stateful=True, name="rnn")

    def build(self, shape):
        self.rnn.build(shape)

    def call(self, inputs):
        return self.rnn(inputs)


def test_the_states_of_a_recurrent_layer_are_noted_once():
    start = keras.Input(batch_shape=(4, 3, 5))
    model = compiled(keras.Model(start, layers.Dense(2)(Remembers(name="mem")(start))))
    found = pg.explain(model, floats(4, 3, 5, seed=1), floats(4, 2, seed=2))
    notes = [note.where for note in found.report.notes if note.kind == "state"]
    assert notes == ["mem/rnn/rnn_state"]


def test_an_array_that_is_written_in_place_is_put_back():
    each = BROKEN["counts in an array"]
    model = each.build()
    counting = model.get_layer("counting").how
    before = counting.array.copy()
    assert pg.check_equivalence(model, *each.batch(), engine=each.engine).causes
    np.testing.assert_array_equal(counting.array, before)


class CountingLoss(keras.losses.Loss):
    """Its value depends on how often it was called."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def call(self, y_true, y_pred):
        self.calls += 1
        return keras.ops.mean((y_true - y_pred) ** 2, axis=-1) * self.calls


def test_attributes_of_a_loss_are_put_back():
    loss = CountingLoss()
    model = chain((5,), dense(), loss=lambda: loss)()
    assert pg.check_equivalence(model, *numbers(5)()).equivalent and loss.calls == 0
