"""Facts that need a process of their own: import, the order of subclassing, replicas, backends."""

import importlib.util

import pytest

from tests.processes import run_code

pytestmark = pytest.mark.subprocess

COMMON = """
import sys
import numpy as np, keras
from keras import layers
import keras_pergrad as pg
x, y = np.ones((4, 3), "float32"), np.zeros((4, 2), "float32")

def functional():
    start = keras.Input((3,))
    return pg.PerGradModel(start, layers.Dense(2)(start))

@keras.saving.register_keras_serializable("t")
class CallStyle(pg.PerGradModel):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(2)
    def build(self, shape):
        self.dense.build(shape)
    def call(self, inputs):
        return self.dense(inputs)

@keras.saving.register_keras_serializable("t")
class FunctionalStyle(pg.PerGradModel):
    def __init__(self, units=2, **options):
        start = keras.Input((3,))
        super().__init__(start, layers.Dense(units)(start), **options)
        self.units = units
    def get_config(self):
        return {"units": self.units}

def use(make):
    model = make()
    model.compile("adam", "mse", per_sample=True)
    model.fit(x, y, batch_size=2, verbose=0)
    assert model.equivalence_report.equivalent
    import tempfile, os
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        loaded = keras.saving.load_model(path)
    assert type(loaded) is type(model), (type(loaded), type(model))
    assert loaded.per_sample == model.per_sample
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert int(loaded.optimizer.iterations) == 2
    nested = keras.Sequential([keras.Input((3,)), model])
    nested.compile("sgd", "mse")
    nested.fit(x, y, verbose=0)
    assert type(keras.models.clone_model(nested).layers[-1]) is type(model)
    return model
"""
KINDS = ("functional", "CallStyle", "FunctionalStyle")


@pytest.mark.slow
@pytest.mark.parametrize(
    "first", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]
)
def test_any_order_of_subclassing(first):
    """Keras rewrites the bases of a class that is used functionally."""
    order = [first, *(kind for kind in KINDS if kind != first), first]
    calls = "".join(f"use({kind})\n" for kind in order)
    late = "class Late(CallStyle):\n    pass\nuse(Late)\nuse(functional)\n"
    result = run_code(COMMON + calls + late.replace("use(Late)", "Late()(x)"))
    assert result.returncode == 0, result.stderr[-3000:]


def test_import_is_quiet_and_light():
    code = """
import sys, keras
before = set(sys.modules)
import keras_pergrad
heavy = {"matplotlib", "tensorboard", "sklearn", "pandas"} & (set(sys.modules) - before)
assert not heavy, heavy
"""
    result = run_code(code)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout == ""


OTHER_BACKEND = """
import keras
if keras.backend.backend() == "tensorflow":
    keras.backend.backend = lambda: "NAMED"
try:
    import keras_pergrad
except ImportError as error:
    assert type(error).__name__ == "BackendError", type(error)
    assert "KERAS_BACKEND=tensorflow" in str(error) and "Received: backend='NAMED'" in str(error)
else:
    raise SystemExit("imported")
"""


@pytest.mark.thinned(2)
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_is_refused_in_one_sentence(backend):
    """The real one where its package is installed; elsewhere Keras is made to name it."""
    installed = importlib.util.find_spec(backend) is not None
    environment = {"KERAS_BACKEND": backend if installed else "tensorflow"}
    result = run_code(OTHER_BACKEND.replace("NAMED", backend), **environment)
    assert result.returncode == 0, result.stderr[-3000:]


REPLICAS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
keras.config.set_floatx("float64")
rng = np.random.default_rng(0)
x, y = rng.normal(size=(16, 3)), rng.normal(size=(16, 2))

def trained(per_sample):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])
        model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"], per_sample=per_sample)
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    return model, history

plain, plain_history = trained(None)
for settings in (
    pg.PerSample(check="always"),
    pg.PerSample(check="always", aggregator="mean"),
    pg.PerSample(check="always", engine="jacobian"),
):
    model, history = trained(settings)
    for a, b in zip(plain.get_weights(), model.get_weights()):
        # float64, four steps: rounding of another order of sums.
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    for name in plain_history:
        np.testing.assert_allclose(plain_history[name], history[name], rtol=1e-10)
    assert set(history) == set(plain_history)
    assert model.equivalence_report.equivalent

# On a replica every loss is Keras' own there, divided by the number of replicas.
alone = pg.per_sample_gradients(model, x[:8], y[:8], of="own")
batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
batch = next(iter(strategy.experimental_distribute_dataset(batches)))

@tf.function
def of_each_replica():
    def found(batch):
        g = pg.per_sample_gradients(model, *batch)
        return g.losses, g.norms(), list(g.mean())
    return strategy.run(found, args=(batch,))

losses, norms, means = of_each_replica()
for parts, whole in ((losses, alone.losses), (norms, alone.norms())):
    found = 2 * np.concatenate([v.numpy() for v in strategy.experimental_local_results(parts)])
    np.testing.assert_allclose(found, whole, rtol=1e-12)
for part, whole in zip(means, alone.mean(), strict=True):
    summed = strategy.reduce("SUM", part, axis=None)
    np.testing.assert_allclose(summed, whole, rtol=1e-12, atol=1e-15)

# A wrong gradient is seen on the host, with the replica; and a sample with NaN by its place there.
from tests import planted
for wrong, poison in ((planted.Planted(planted.scaled(1.01)), 0.0), ("vectorized", np.nan)):
    with strategy.scope():
        model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2)])
        model.compile("sgd", "mse", per_sample=pg.PerSample(wrong))
    bad = x[:8].copy()
    bad[5] += poison
    try:
        model.fit(bad, y[:8], batch_size=8, shuffle=False, verbose=0)
    except pg.EquivalenceError as error:
        report = error.report
        assert "Seen by replica" in str(report)
        if poison != 0.0:
            assert report.non_finite_indices == [1] and "replica 1" in str(report), str(report)
    else:
        raise SystemExit("a wrong gradient passed")

# A first batch that two replicas do not share evenly stops Keras itself, in its own words.
said = []
for settings in (None, pg.PerSample()):
    with strategy.scope():
        model = pg.PerGradSequential([keras.Input((3,)), layers.Dense(2)])
        model.compile("sgd", "mse", per_sample=settings)
    try:
        model.fit(x[:7], y[:7], batch_size=8, verbose=0)
    except tf.errors.InvalidArgumentError as error:
        said.append(str(error))
assert len(said) == 2 and said[0] == said[1] and "AddN" in said[0], said
"""


@pytest.mark.slow  # by default on logical devices of the tests' own process
def test_two_replicas_equal_plain_keras():
    """`compute_loss` is divided by the number of replicas, and logs are averaged over them.

    So are losses and norms on a replica; their means add up to the gradient of the whole batch.
    """
    result = run_code(COMMON + REPLICAS)
    assert result.returncode == 0, result.stderr[-3000:]


SEEDLESS = """
import random
from keras import ops
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
noise = lambda shape: keras.random.uniform(shape)
model.compile("sgd", lambda y, p: ops.mean((y - p) ** 2 * noise(ops.shape(p)), -1))
assert get_global_attribute(GLOBAL_SEED_GENERATOR) is None
before = random.getstate()
pg.assert_equivalent(model, x, y)
assert get_global_attribute(GLOBAL_SEED_GENERATOR) is None and random.getstate() == before
"""


def test_a_loss_that_draws_without_a_seed_before_anything_else_has():
    """Keras makes its global generator at the first draw; in a trace, it was taken for a weight."""
    result = run_code(COMMON + SEEDLESS)
    assert result.returncode == 0, result.stderr[-2000:]
