"""With a monitor at every step, several steps of a large rate give plain Keras' bits."""

import keras
import numpy as np
import pytest

from tests import oracle
from tests.cases import make_case
from tests.monitored import Monitor
from tests.problems import PROBLEMS, Problem

STEPS, RATE = 6, 0.1
# Of each kind of graph that was seen to be rewritten where there is one more reader.
QUICK = ("circle", "batch_normalization_training", "vae_compute_loss")


def _state(problem: Problem, callbacks) -> list[np.ndarray]:
    """All variables after some steps, and the losses on the way."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    case = make_case(problem)
    case.model.optimizer.learning_rate = RATE
    x, y, weight = case.batch
    size = oracle.number_of_samples(x)
    options = {"batch_size": size, "epochs": STEPS, "shuffle": False, "verbose": 0}
    history = case.model.fit(x, y, sample_weight=weight, callbacks=callbacks, **options).history
    losses = [value for name, value in history.items() if not name.startswith(("grad_", "loss_"))]
    return [*oracle.state_of(case.model), *map(np.asarray, losses)]


@pytest.mark.thinned(3)
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@pytest.mark.filterwarnings("ignore::keras_pergrad.PerGradWarning")  # of what cannot be told apart
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(p, id=p.name, marks=() if p.name in QUICK else pytest.mark.slow)
        for p in PROBLEMS
    ],
)
def test_the_bits_are_those_of_plain_keras(problem):
    engine = "jacobian" if "needs_batch" in problem.tags else "auto"
    engine = "loop" if "loop_only" in problem.tags else engine
    monitor = Monitor("standard", every=1, engine=engine)
    plain, found = _state(problem, []), _state(problem, [monitor])
    assert len(monitor.records) == STEPS
    assert len(plain) == len(found)
    for a, b in zip(plain, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_quick_exists():
    assert set(QUICK) <= {problem.name for problem in PROBLEMS}
