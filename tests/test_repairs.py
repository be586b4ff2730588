"""After its remedy is applied in code, the same call that named a cause confirms that it is gone.

For every kind that a person can repair. `batch_term` is no fault and has no repair.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_pergrad as pg
from keras_pergrad.equivalence import causes
from tests.broken import BROKEN
from tests.broken.base import (
    Mixes,
    OwnLoss,
    chain,
    dense,
    images,
    masked,
    mixing,
    numbers,
    own_loss,
    penalized,
    segmenting,
)
from tests.broken.kept import InArray, counting
from tests.broken.rounding import half, scaled_by
from tests.cases import nudge
from tests.problems import compiled, floats

Build = Callable[[], keras.Model]
VECTORS = numbers(5)


@dataclass(frozen=True)
class Repair:
    """A broken model and its repair, asked by the same call on the same batch.

    Attributes:
        broken, repaired: what builds them.
        batch: for both.
        options: of `check_equivalence`.
        repaired_options: in their place, where the repair is in the call; it changes nothing else.
        noted: whether the kind is a note of `explain`, as the check passes.
        refused: whether the broken model is refused, with the section of the kind.
    """

    broken: Build
    repaired: Build
    batch: Callable[[], tuple] = VECTORS
    options: tuple[tuple[str, Any], ...] = ()
    repaired_options: tuple[tuple[str, Any], ...] | None = None
    noted: bool = False
    refused: bool = False


def _per_sample_masked(y, y_pred):
    mask = ops.cast(ops.any(y != 0, axis=-1), y_pred.dtype)
    each = ops.mean((y - y_pred) ** 2, axis=-1) * mask
    return ops.sum(each, axis=1) / ops.sum(mask, axis=1)


def _masked_labels() -> tuple:
    x, y, _ = masked()
    return x, y * np.any(x != 0, axis=-1, keepdims=True), None


class _CountingInWeight(keras.Layer):
    def build(self, shape):
        self.calls = self.add_weight(shape=(), trainable=False, initializer="zeros")

    def call(self, inputs):
        self.calls.assign_add(1)
        return inputs * (1 + 0.1 * (self.calls % 5))


def _with_weights() -> tuple:
    return (*numbers(5)()[:2], np.linspace(0.5, 2, 12).astype("float32"))


def _mse(**options: Any) -> Callable:
    return lambda: keras.losses.MeanSquaredError(**options)


class Stepped(OwnLoss):
    def train_step(self, data):
        raise AssertionError("no check runs it")


def _stepped() -> keras.Model:
    model = Stepped(lambda y, p: ops.mean((y - p) ** 2))
    model(floats(1, 5))
    return compiled(model, None)


def _recurrent(stateful: bool) -> Build:
    def build() -> keras.Model:
        start = keras.Input(batch_shape=(12 if stateful else None, 4, 3))
        return compiled(
            keras.Model(start, layers.Dense(2)(layers.LSTM(3, stateful=stateful)(start)))
        )

    return build


def _half(optimizer: Callable) -> Build:
    """In half precision, with a loss so small that gradients underflow."""

    def build() -> keras.Model:
        keras.config.set_dtype_policy("mixed_float16")
        model = keras.Sequential([keras.Input((5,)), layers.Dense(4), layers.Dense(2)])
        model.compile(optimizer(), "mse", loss_weights=1e-7, auto_scale_loss=False)
        return model

    return build


def _scaled() -> keras.Optimizer:
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=2.0**24)


def _damped(axis: int | None) -> Callable:
    """The identity, with a gradient damped by the largest number: of all samples, or of each."""

    @tf.custom_gradient
    def identity(x):
        def gradient(upstream):
            return upstream / (1 + tf.reduce_max(tf.abs(x), axis=axis, keepdims=True))

        return tf.identity(x), gradient

    return identity


def _noisy() -> keras.Layer:
    return layers.GaussianNoise(1.0)


REPAIRS = {
    "sample_interaction": Repair(
        BROKEN["batch normalization"].build,
        chain((5,), dense(4), lambda: layers.GroupNormalization(2), dense()),
    ),
    "sample_interaction by replace_batch_norm": Repair(
        BROKEN["batch normalization"].build,
        lambda: pg.replace_batch_norm(BROKEN["batch normalization"].build()),
    ),
    "sample_interaction in a layer's own code": Repair(
        BROKEN["mixes: centre"].build,
        mixing(lambda x: x - ops.mean(x, axis=-1, keepdims=True)),
    ),
    "sample_interaction in the loss": Repair(
        segmenting(keras.losses.Dice),
        segmenting(lambda: keras.losses.Dice(axis=(1, 2, 3))),
        images(2),
    ),
    "loss_normalization by a mask": Repair(
        BROKEN["mask"].build,
        chain((4, 3), dense(), loss=lambda: _per_sample_masked),
        _masked_labels,
    ),
    "loss_normalization by a sum": Repair(
        chain((5,), dense(), loss=_mse(reduction="sum")),
        chain((5,), dense(), loss=_mse(reduction="sum_over_batch_size")),
    ),
    "loss_normalization by weights": Repair(
        chain((5,), dense(), loss=_mse(reduction="mean_with_sample_weight")),
        chain((5,), dense(), loss=_mse(reduction="sum_over_batch_size")),
        _with_weights,
    ),
    "loss_scale": Repair(
        own_loss(lambda y, p: ops.sum((y - p) ** 2)), own_loss(lambda y, p: ops.mean((y - p) ** 2))
    ),
    "summed_add_loss": Repair(
        BROKEN["vector given to add_loss"].build,
        penalized(lambda x: ops.mean(ops.sum(x**2, axis=1))),
    ),
    "broadcast": Repair(
        BROKEN["rank 1 against rank 2"].build,
        own_loss(lambda y, p: ops.mean((ops.reshape(y[:, 0], ops.shape(p)) - p) ** 2), units=1),
    ),
    "randomness": Repair(
        BROKEN["noise of NumPy"].build,
        chain((5,), dense(4), _noisy, dense()),
        options=(("engine", "loop"),),
    ),
    "state": Repair(
        _recurrent(stateful=True),
        _recurrent(stateful=False),
        lambda: (floats(12, 4, 3, seed=1), floats(12, 2, seed=2)),
        refused=True,
    ),
    "state in an array": Repair(
        counting(InArray),
        chain((5,), dense(4), _CountingInWeight, dense()),
    ),
    "precision of the tolerance": Repair(
        chain((5,), dense()),
        chain((5,), dense()),
        options=(("rtol", 1e-12),),
        repaired_options=(("rtol", 1e-5),),
    ),
    "precision in half": Repair(_half(lambda: "sgd"), _half(_scaled), noted=True),
    "precision beyond the largest": Repair(half(scaled_by(2.0**24)), half(scaled_by(2.0**6))),
    "non_finite": Repair(
        BROKEN["log of zero"].build, mixing(lambda x: ops.log(ops.relu(x) + 1e-3))
    ),
    "unconnected": Repair(
        mixing(lambda x: ops.stop_gradient(x)), mixing(lambda x: ops.tanh(x)), noted=True
    ),
    "own_train_step": Repair(_stepped, own_loss(lambda y, p: ops.mean((y - p) ** 2)), noted=True),
    "unexplained": Repair(
        chain((5,), dense(4), lambda: Mixes(_damped(None)), dense()),
        chain((5,), dense(4), lambda: Mixes(_damped(-1)), dense()),
        options=(("engine", "loop"),),
    ),
}


def asked(build: Build, repair: Repair, options: tuple) -> pg.EquivalenceReport:
    """The call that both models are asked by."""
    model = build()
    nudge(model)
    if repair.noted:
        return pg.explain(model, *repair.batch()).report
    return pg.check_equivalence(model, *repair.batch(), **dict(options))


def kinds(report: pg.EquivalenceReport) -> set[str]:
    return {cause.kind for cause in (*report.causes, *report.notes)}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", REPAIRS)
def test_the_call_that_names_a_cause_confirms_its_repair(name):
    kind, repair = name.split()[0], REPAIRS[name]
    if repair.refused:
        with pytest.raises(pg.PerGradError, match=f"#{kind}"):
            asked(repair.broken, repair, repair.options)
    else:
        broken = asked(repair.broken, repair, repair.options)
        assert kind in kinds(broken), str(broken)
        assert broken.equivalent == repair.noted, str(broken)
    options = repair.options if repair.repaired_options is None else repair.repaired_options
    repaired = asked(repair.repaired, repair, options)
    assert repaired.equivalent and repaired.causes == [], str(repaired)
    if repair.noted:  # replayed noise and frozen weights, which are no faults, are notes, too
        assert kind not in kinds(repaired), str(repaired)


def test_every_kind_has_a_repair():
    """But terms that no sample owns, which are no fault."""
    texts = [path.read_text() for path in Path(causes.__file__).parent.glob("_*.py")]
    kinds = {kind for text in texts for kind in re.findall(r'^KIND = "(\w+)"', text, re.MULTILINE)}
    assert kinds - {"batch_term"} == {name.split()[0] for name in REPAIRS}
