"""Errors that come of a cause name its section, and the documentation has it."""

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from keras_pergrad.errors import PAGE, PerGradError, section_of
from tests.broken import BROKEN
from tests.problems import compiled, floats

PACKAGE = Path(pg.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
TEXT = (PACKAGE.parent / PAGE).read_text(encoding="utf-8")
HEADINGS = set(re.findall(r"^## (\w+)$", TEXT, re.MULTILINE))
X, Y = floats(4, 3, seed=1), floats(4, 2, seed=2)


def _strings(node: ast.AST) -> set[str]:
    constants = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant)]
    return {each for each in constants if isinstance(each, str)}


def _given_to(name: str, tree: ast.AST) -> Iterator[str]:
    """The strings that a name is assigned, or a keyword of that name is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == name:
            yield from _strings(node.value)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if [ast.unparse(target) for target in targets] == [name]:
                yield from _strings(node.value)


def _all_given_to(name: str, under: str = "") -> set[str]:
    files = [path for path in FILES if under in path.as_posix()]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    return {given for tree in trees for given in _given_to(name, tree)}


def test_every_section_that_an_error_names_is_in_the_documentation():
    named = _all_given_to("causes")
    assert len(named) >= 8  # a search that finds none proves nothing
    assert named <= HEADINGS, named - HEADINGS


def test_every_cause_has_a_section_of_its_name():
    kinds = _all_given_to("KIND", under="equivalence/causes/")
    assert len(kinds) >= 12
    assert kinds <= HEADINGS, kinds - HEADINGS


def test_the_address_of_the_page_is_written_in_one_place():
    holding = [path.name for path in FILES if PAGE in path.read_text(encoding="utf-8")]
    assert holding == ["errors.py"]


@pytest.mark.parametrize("name", ["TrainStepError", "SeparationError"])
def test_no_error_of_these_is_without_a_section(name):
    calls = [
        node
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name
    ]
    assert calls
    assert all("causes" in [each.arg for each in call.keywords] for call in calls)


def test_the_section_comes_before_what_was_received_which_comes_last():
    error = pg.DataError("It says 'Received: 1'. Do so. Received: 2.", causes=("state",))
    assert str(error) == f"It says 'Received: 1'. Do so. See {PAGE}#state. Received: 2."
    assert error.sections == [section_of("state")]
    both = PerGradError("Do so. Received: 2.", causes=("state", "precision"))
    assert f"See {PAGE}#state or {PAGE}#precision. Received" in str(both)
    plain = PerGradError("Do so. Received: 2.")
    assert str(plain) == "Do so. Received: 2." and plain.sections == []


def test_an_error_survives_pickling():
    error = pg.SeparationError("Do so. Received: 2.", causes=("state",))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.sections) == (type(error), str(error), error.sections)


# --- as they are raised ---


def linear(*more: keras.Layer, loss: str = "mse", cls: type = keras.Sequential) -> keras.Model:
    return compiled(cls([keras.Input((3,)), *more, layers.Dense(2)]), loss)


class Stepping(pg.PerGradSequential):
    def train_step(self, data):
        raise AssertionError("it is refused before")


class OwnLoss(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.norm(y_pred)


class Shuffling(layers.Layer):
    def call(self, inputs):
        return tf.random.shuffle(inputs)


class Writing(layers.Layer):
    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0.0, trainable=False)

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs


class Late(layers.Layer):
    def call(self, inputs):
        return layers.Dense(2)(inputs)


class Summing(layers.Layer):
    def call(self, inputs):
        self.add_loss(ops.sum(inputs**2))
        return inputs


def _own_step():
    Stepping([keras.Input((3,)), layers.Dense(2)]).compile("sgd", "mse", per_sample=True)


def _batch_norm_refused():
    model = pg.PerGradSequential([keras.Input((3,)), layers.BatchNormalization(), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=pg.PerSample(batch_norm="error"))
    model.fit(X, Y, verbose=0)


def _without_reduction():
    model = linear(layers.Dense(2, kernel_regularizer="l2"))
    model.compile("sgd", keras.losses.MeanSquaredError(reduction=None))
    pg.per_sample_gradients(model, X, Y)


def _stateful():
    start = keras.Input(batch_shape=(4, 2, 3))
    model = keras.Model(start, layers.Dense(2)(layers.LSTM(3, stateful=True)(start)))
    pg.per_sample_gradients(compiled(model), floats(4, 2, 3), Y, engine="loop")


def _asked(model: keras.Model, *batch, **options):
    return lambda: pg.per_sample_gradients(model(), *(batch or (X, Y)), **options).norms()


RAISED = {
    "own_train_step": (_own_step, pg.TrainStepError),
    "sample_interaction": (
        _asked(lambda: linear(layers.BatchNormalization()), engine="vectorized"),
        pg.SeparationError,
    ),
    "sample_interaction refused": (_batch_norm_refused, pg.UnsupportedError),
    "loss_normalization or sample_interaction": (
        _asked(lambda: linear(cls=OwnLoss), engine="loop"),
        pg.SeparationError,
    ),
    "loss_normalization": (_without_reduction, pg.UnsupportedError),
    "broadcast": (
        _asked(lambda: linear(layers.RepeatVector(2)), X, floats(4, 2, 2), floats(4)),
        pg.DataError,
    ),
    "broadcast of sizes": (_asked(linear, X, Y[:1]), pg.DataError),
    "randomness": (_asked(lambda: linear(Shuffling()), engine="loop"), pg.UnsupportedError),
    "state": (_asked(lambda: linear(Writing()), engine="loop"), pg.UnsupportedError),
    "state of rows": (_stateful, pg.UnsupportedError),
    "unconnected": (_asked(lambda: linear(Late()), engine="loop"), pg.PerGradError),
    "summed_add_loss": (_asked(lambda: linear(Summing()), engine="jacobian"), pg.UnsupportedError),
}


@pytest.mark.parametrize("name", RAISED)
def test_an_error_names_the_section_that_explains_it(name):
    ask, kind = RAISED[name]
    with pytest.raises(kind, match="Received: ") as raised:
        ask()
    sections = [section_of(word) for word in name.split() if word in HEADINGS]
    assert raised.value.sections == sections
    assert f" See {' or '.join(sections)}. Received: " in str(raised.value)


def test_a_report_names_the_same_address():
    broken = BROKEN["sum"]
    [cause] = pg.check_equivalence(broken.build(), *broken.batch()).causes
    assert cause.section == section_of(cause.kind)


@pytest.mark.parametrize("engine", ["vectorized", "loop", "jacobian", "factored"])
def test_a_loss_that_no_sample_has_alone_is_told_by_every_engine(engine):
    """No engine sends the user to the next one, which would send them back."""

    def hardest(y, y_pred):
        return ops.mean(ops.top_k(ops.mean((y - y_pred) ** 2, -1), 3)[0])

    model = compiled(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), hardest)
    with pytest.raises(pg.UnsupportedError, match=r"by no engine.*See .*#sample_interaction"):
        pg.check_equivalence(model, X, Y, engine=engine)
