"""Run in a process of its own: the shapes on which TensorFlow corrupts memory (issue 117700).

`python -m tests.crash_shapes ENGINE REPEATS` ends with 0 when every result is right, with 1 when
one is wrong, and with a signal when the memory is corrupted. TensorFlow's defaults are not
touched: no thread settings, no oneDNN flag.
"""

import sys

import numpy as np

import keras_pergrad as pg
from tests import oracle
from tests.cases import TOLERANCE, make_case
from tests.problems import by_name, floats

# Dense maps over sequences and grids, where one sample is [1, 1, T, K] × [K, N] in a vectorized
# loop, and attention, which is made of them.
NAMES = (
    "dense_on_sequence",
    "dense_on_grid",
    "einsum_dense",
    "flattened_sequence",
    "multi_head_attention",
    "group_query_attention",
    "transformer",
    "lora_einsum_dense",
)


def wide_case():
    """[16, 32, 64] × [64, 48]: wide enough for oneDNN's blocked kernels."""
    import keras

    model = keras.Sequential([keras.Input((32, 64)), keras.layers.Dense(48, "tanh")])
    model.compile("sgd", "mse")
    return model, (floats(16, 32, 64, seed=1), floats(16, 32, 48, seed=2), None)


def errors(engine: str, times: int):
    """The relative error on each of the shapes, computed again and again."""
    cases = [make_case(by_name(name)) for name in NAMES]
    pairs = [(case.model, case.batch) for case in cases]
    for model, batch in [*pairs, wide_case()]:
        expected = oracle.own_gradients(model, *batch)
        for _ in range(times):
            found = pg.per_sample_gradients(model, *batch, engine=engine, of="own").materialize()
            found = [np.asarray(value) for value in found.values()]
            yield oracle.largest_difference(found, expected) / oracle.global_norm(expected)


if __name__ == "__main__":
    worst = max(errors(sys.argv[1], int(sys.argv[2])))
    print(f"worst relative error {worst:.2e}")
    sys.exit(int(worst > TOLERANCE["float32"]))
