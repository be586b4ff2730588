"""What is gone is freed: neither graphs nor models stay behind."""

import gc

import keras
import pytest
from keras import layers
from tensorflow.python.framework.func_graph import FuncGraph

import keras_pergrad as pg
from tests.problems import compiled, floats

BATCH = floats(8, 3, seed=1), floats(8, 2, seed=2)


def _fit(check, engine="auto"):
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=pg.PerSample(engine, check=check))
    model.fit(*BATCH, batch_size=4, verbose=0)


def _by_hand():
    stack = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
    assert pg.check_equivalence(compiled(keras.Sequential(stack)), *BATCH).equivalent


def _graphs() -> int:
    gc.collect()
    return sum(isinstance(each, FuncGraph) for each in gc.get_objects())


@pytest.mark.parametrize("use", [lambda: _fit("always"), _by_hand], ids=["fit", "by_hand"])
def test_a_model_that_is_gone_leaves_no_graph(use):
    """TensorFlow keeps every custom gradient that it traced, and Keras traces some for a loss."""
    use()
    before = _graphs()
    for _ in range(2):
        use()
    assert _graphs() == before


def _factored_by_hand():
    stack = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
    model = compiled(keras.Sequential(stack))
    pg.per_sample_gradients(model, *BATCH, engine="factored")


def _captured() -> int:
    """How many tensors and variables living graphs hold from outside."""
    for _ in range(2):  # what one collection empties, the next one frees
        gc.collect()
    graphs = [each for each in gc.get_objects() if isinstance(each, FuncGraph)]
    return sum(len(graph.external_captures) for graph in graphs)


@pytest.mark.parametrize(
    "use", [lambda: _fit("first", "factored"), _factored_by_hand], ids=["fit", "by_hand"]
)
def test_a_graph_that_tensorflow_never_frees_holds_no_data(use):
    """It miscounts a gradient that is asked for at two tensors, as on both sides of a bias."""
    use()
    before = _captured()
    for _ in range(2):
        use()
    assert _captured() == before
