"""`aggregator="mean"`: one SGD step on every problem gives the weights of plain Keras."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from tests import oracle
from tests.cases import make_case, tolerance_of
from tests.problems import Problem, by_tag, floats
from tests.twins import expect_close, trained

RATE = 0.1
PROBLEMS = by_tag(without=("couples", "not_equivalent", "no_decomposition", "needs_batch"))
# One of each way in which a weight or a loss can be unlike the others; LSTMs are trained elsewhere.
TYPICAL = """
    mse sample_weight regularizers_and_weights add_loss_mean nested_inputs_and_outputs frozen_layer
    embedding_repeated_ids embedding_mask_zero conv2d two_dropouts
""".split()


def _step(problem: Problem, per_sample) -> list[np.ndarray]:
    """How far one step moves each weight."""
    case = make_case(problem)
    case.model.optimizer.learning_rate = RATE
    before = [v.numpy() for v in case.model.trainable_variables]
    if per_sample is None:
        case.model.train_on_batch(*case.batch)
    else:
        with pg.attach(case.model, per_sample):
            case.model.train_on_batch(*case.batch)
    after = [v.numpy() for v in case.model.trainable_variables]
    return [a - b for a, b in zip(after, before, strict=True)]


def _engine(problem: Problem) -> str:
    return "loop" if "loop_only" in problem.tags else "vectorized"


@pytest.mark.thinned(2)
# What Keras says of a weight that the loss does not depend on.
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(p, id=p.name, marks=() if p.name in TYPICAL else pytest.mark.slow)
        for p in PROBLEMS
    ],
)
def test_one_step_is_that_of_plain_keras(problem):
    settings = pg.PerSample(_engine(problem), check="off", aggregator="mean")
    plain = _step(problem, None)
    found = _step(problem, settings)
    # In units of the largest change of any weight: weights themselves would hide the gradient. A
    # change is a difference of two weights of size 1, each rounded to 1.2e-7.
    largest = oracle.global_norm(plain)
    allowed = tolerance_of(problem, "float32") * largest + 4 * np.finfo("float32").eps
    assert largest > 100 * allowed or problem.name == "sample_weight_all_zero"
    assert oracle.largest_difference(found, plain) <= allowed


def test_typical_problems_exist():
    assert set(TYPICAL) <= {problem.name for problem in PROBLEMS}


def _normalized(functional, sequential):
    chain = [layers.Dense(4, "tanh"), layers.BatchNormalization(), layers.Dense(2)]
    return sequential([keras.Input((3,)), *chain])


@pytest.mark.usefixtures("deterministic")
def test_the_jacobian_trains_batch_normalization_as_plain_keras():
    """Its rows contain what each sample does to the statistics, so that they add up."""

    def fit(model):
        x, y = floats(14, 3, seed=1), floats(14, 2, seed=2)
        return model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)

    settings = pg.PerSample("jacobian", check="off", aggregator="mean")
    plain = trained(_normalized, None, fit=fit, optimizer=keras.optimizers.SGD(RATE))
    found = trained(_normalized, settings, fit=fit, optimizer=keras.optimizers.SGD(RATE))
    # float32, eight steps of 0.1: a hundred roundings of sums in another order.
    expect_close(plain, found, rtol=1e-5)
    assert all(np.any(v.numpy()) for v in found[0].non_trainable_variables)
