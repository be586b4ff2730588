"""Two replicas, with even and uneven shards, record what one replica does."""

import pytest

from tests.processes import run_code
from tests.test_replicas import COMMON

pytestmark = pytest.mark.subprocess

CODE = """
from tests.monitored import expect_records_equal

def trained(distributed, level):
    keras.utils.set_random_seed(0)
    monitor = pg.callbacks.GradientMonitor(level, every=1, by_variable=True)
    scope = strategy.scope() if distributed else tf.name_scope("")
    with scope:
        model = MAKE([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])
        model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    given = pg.with_ids(x, y) if issubclass(MAKE, pg.PerGradMixin) else {"x": x, "y": y}
    options = {"batch_size": 8, "epochs": 1, "shuffle": False, "verbose": 0}
    model.fit(**given, callbacks=[monitor], **options)
    return monitor

one, two = (list(trained(several, "standard").records) for several in (False, True))
assert [record.size for record in one] == [8, len(x) - 8]
# float64: sums in another order; roots of what cancels keep half of the digits.
if len(x) < 16:  # Keras gives a replica with fewer rows as much weight: another update
    for record in (one[-1], two[-1]):
        for numbers in (record.values, *record.groups.values()):
            numbers.update({name: 0.0 for name in numbers if "loss_change" in name})
        del record.terms["LossChange"], record.terms["PredictedChange"]
expect_records_equal(two, one, 1e-9)
full = trained(True, "full")
for name in ("grad_confusion", "grad_pairwise_cosine", "grad_gsnr"):
    assert np.isnan(full.records[0].values[name]), name
"""


def two_replicas(rows: int, make: str) -> None:
    """Asserts that they record what one does."""
    result = run_code(COMMON.replace("(13, ", f"({rows}, ") + CODE.replace("MAKE", make))
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize(
    ("rows", "make"),
    [
        (13, "pg.PerGradSequential"),
        pytest.param(9, "keras.Sequential", marks=pytest.mark.slow),
        pytest.param(16, "pg.PerGradSequential", marks=pytest.mark.slow),
    ],
)
def test_two_replicas_record_what_one_does(rows, make):
    """A last batch of 3 and 2 rows; of 1 and none; of 4 and 4."""
    two_replicas(rows, make)
