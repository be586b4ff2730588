"""What is gone is freed: neither graphs nor models stay behind."""

import gc

import keras
import pytest
from keras import layers
from tensorflow.python.framework.func_graph import FuncGraph

import keras_pergrad as pg
from tests.problems import compiled, floats

BATCH = floats(8, 3, seed=1), floats(8, 2, seed=2)


def _fit(check, engine):
    model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])
    model.compile("sgd", "mse", per_sample=pg.PerSample(engine, check=check))
    model.fit(*BATCH, batch_size=4, verbose=0)


def _by_hand():
    stack = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
    assert pg.check_equivalence(compiled(keras.Sequential(stack)), *BATCH).equivalent


def _factored_by_hand():
    stack = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
    model = compiled(keras.Sequential(stack))
    pg.per_sample_gradients(model, *BATCH, engine="factored")


def _graphs() -> list[FuncGraph]:
    for _ in range(2):  # what one collection empties, the next one frees
        gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, FuncGraph)]


def _captured() -> int:
    """How many tensors and variables living graphs hold from outside."""
    return sum(len(graph.external_captures) for graph in _graphs())


USES = {
    "vectorized_in_fit": (lambda: _fit("always", "vectorized"), lambda: len(_graphs())),
    "by_hand": (_by_hand, lambda: len(_graphs())),
    # TensorFlow never frees these: it miscounts a gradient that is asked for at two tensors.
    "factored_in_fit": (lambda: _fit("first", "factored"), _captured),
    "factored_by_hand": (_factored_by_hand, _captured),
}


@pytest.mark.thinned(2)
@pytest.mark.parametrize(("use", "kept"), USES.values(), ids=list(USES))
def test_a_model_that_is_gone_leaves_no_graph_or_an_empty_one(use, kept):
    """TensorFlow keeps every custom gradient that it traced, and Keras traces some for a loss."""
    use()
    before = kept()
    for _ in range(2):
        use()
    assert kept() == before
