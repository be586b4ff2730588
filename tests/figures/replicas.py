"""R12: two replicas, uneven shards, and a replica without rows."""

from tests.figures._figure import Figure
from tests.processes import run_code
from tests.test_replicas import COMMON

# Rows in all, by batches of 8: even shards; a last batch of 3 and 2; one of 1 and none.
ROWS = (16, 13, 9)
ENGINES = ("factored", "vectorized")
TRAINED = """
def trained(per_sample):
    make = keras.Sequential if per_sample is None else pg.PerGradSequential
    model, history = fitted(lambda: make(chain()), "mse", per_sample)
    return model, history, np.concatenate([np.ravel(weight) for weight in model.get_weights()])

_, history, plain = trained(None)
model, checked_history, checked = trained(pg.PerSample(ENGINE, check="always"))
assert history == checked_history and model.equivalence_report.equivalent
np.testing.assert_array_equal(plain, checked)
_, _, averaged = trained(pg.PerSample(ENGINE, check="off", aggregator="mean"))
np.testing.assert_allclose(plain, averaged, rtol=1e-10, atol=1e-12)
"""
# Each replica is given its rows; the losses there are Keras' own divided by two.
NORMS = """
def one(distributed):
    keras.utils.set_random_seed(0)
    quiet = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]
    if not distributed:
        model = keras.Sequential(quiet)
        model.compile("sgd", "mse")
        return model
    with strategy.scope():
        return one(False)

def ask(model, x, y):
    return pg.per_sample_gradients(model, x, y, engine=ENGINE).norms()

model, (first, last) = one(True), ((x[:4], y[:4]), (x[4:7], y[4:7]))

@tf.function
def on_each():
    def shard(number):
        return [tf.constant(part) for part in (first, last)[number]]

    def step():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return ask(model, *shard(tf.get_static_value(replica)))

    return strategy.run(step)

parts = strategy.experimental_local_results(on_each())
found = np.concatenate([2 * np.asarray(part) for part in parts])
np.testing.assert_allclose(found, ask(one(False), x[:7], y[:7]), rtol=1e-10)
"""


def two_replicas(smoke: bool) -> Figure:
    """R12: the weights of plain Keras under the same strategy, and the norms of one replica."""
    missed = []
    asked = [(engine, rows) for engine in ENGINES for rows in ROWS][:: 4 if smoke else 1]
    for engine, rows in asked:
        common = COMMON.replace("(13, ", f"({rows}, ")
        code = f"{common}\nENGINE = {engine!r}\n{TRAINED}\n{NORMS}"
        result = run_code(code)
        if result.returncode:
            last = result.stderr.strip().splitlines()[-1:]
            missed.append(f"{engine}, {rows} rows: {' '.join(last)}")
    value, target = f"{len(asked) - len(missed)} of {len(asked)}", f"{len(asked)} of {len(asked)}"
    return Figure("two replicas", value, target, not missed, tuple(missed))
