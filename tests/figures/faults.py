"""R7: what is wrong or unusual in models, losses and data, and what `fit` says of it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

import keras_pergrad as pg
from tests.cases import make_case, set_dtype
from tests.figures._figure import Figure
from tests.problems import by_name, compiled, floats
from tests.test_odd_models import MODELS as ODD

WAYS = {"graph": {}, "eager": {"run_eagerly": True}, "XLA": {"jit_compile": True}}
Made = tuple[keras.Model, tuple]


@dataclass(frozen=True)
class Fault:
    """Something that is wrong or unusual, and what has to come of it.

    Attributes:
        make: the compiled model and the batch.
        expected: `"exact"`, `"warned"` (exact, with a warning), `"different"`, `"named"` (the
            sample that is not finite), or the error that refuses it.
        not_under: ways in which plain Keras itself stops.
    """

    make: Callable[[], Made]
    expected: str
    not_under: tuple[str, ...] = ()


def faults_told(smoke: bool) -> Figure:
    """R7: every fault in a graph, eagerly and under XLA, by the engine `factored`."""
    names = list(FAULTS)[:: 8 if smoke else 1]
    ways = ["graph"] if smoke else list(WAYS)
    asked = [(name, way) for name in names for way in ways if way not in FAULTS[name].not_under]
    missed = []
    for name, way in asked:
        found = _outcome(FAULTS[name], WAYS[way])
        if found != FAULTS[name].expected:
            missed.append(f"{name}, {way}: {found}, not {FAULTS[name].expected}")
    total = len(asked)
    value = f"{total - len(missed)} of {total} as specified"
    return Figure("faults", value, f"{total} of {total}", not missed, tuple(missed))


def _outcome(fault: Fault, way: dict[str, bool]) -> str:
    set_dtype("float32")
    keras.config.set_dtype_policy("float32")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            report = _trained(*fault.make(), way)
        except pg.EquivalenceError as error:
            return "named" if error.report.non_finite else "different"
        except pg.PerGradError as error:
            return type(error).__name__
        finally:
            keras.config.set_dtype_policy("float32")
    warned = any(issubclass(each.category, pg.PerGradWarning) for each in seen)
    if report is None:
        return "not checked"
    return "warned" if warned else "exact"


def _trained(model: keras.Model, batch: tuple, way: dict[str, bool]) -> pg.EquivalenceReport | None:
    for name, value in way.items():
        setattr(model, name, value)
    with pg.attach(model, pg.PerSample("factored", check="always")) as attached:
        x, y, *weights = batch
        model.train_on_batch(x, y, *weights)
    return attached.equivalence_report


# --- how they are made ---


def _problem(name: str) -> Callable[[], Made]:
    def make() -> Made:
        case = make_case(by_name(name))
        return case.model, case.batch

    return make


def _odd(name: str) -> Callable[[], Made]:
    return lambda: (ODD[name](), (floats(4, 3, seed=1), floats(4, 2, seed=2)))


def _small(
    loss: Any = "mse",
    *,
    policy: str = "float32",
    middle: Callable[[], list] = list,
    options: Callable[[], dict] = dict,
) -> Callable[[], Made]:
    def make() -> Made:
        keras.config.set_dtype_policy(policy)
        chain = [keras.Input((3,)), layers.Dense(4, "tanh"), *middle(), layers.Dense(2)]
        model = keras.Sequential(chain)
        model.compile(**{"optimizer": "sgd", "loss": loss, **options()})
        return model, (floats(4, 3, seed=1), floats(4, 2, seed=2))

    return make


def _with_batch(*batch: Any, shape: tuple[int, ...] = (3,)) -> Callable[[], Made]:
    """A linear model, and this batch."""
    return lambda: (compiled(keras.Sequential([keras.Input(shape), layers.Dense(2)])), batch)


def _poisoned() -> Made:
    model, (x, y) = _small()()
    x[2, 1] = np.nan
    return model, (x, y)


class _Untracked(layers.Layer):
    """Calls a layer that Keras does not see."""

    def __init__(self, hidden, **options):
        super().__init__(**options)
        self.hidden = hidden

    def call(self, inputs):
        return inputs * self.hidden()


def _untracked() -> list:
    weight = keras.Variable(np.ones(4, "float32"), name="outside")
    return [_Untracked(lambda: ops.convert_to_tensor(weight))]


class _OwnStep(keras.Sequential):
    def train_step(self, data):
        return {"loss": self.compute_loss(*data, y_pred=self(data[0]))}


def _own_step() -> Made:
    model = compiled(_OwnStep([keras.Input((3,)), layers.Dense(2)]))
    return model, (floats(4, 3), floats(4, 2))


def _centered(values):
    return values - ops.mean(values, axis=0, keepdims=True)


def _per_entry(y_true, y_pred):
    return ops.reshape(ops.square(y_true - y_pred), (-1,))


def _accumulating() -> dict[str, Any]:
    return {"optimizer": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)}


FAULTS: dict[str, Fault] = {
    "a scalar loss": Fault(_small(lambda y, p: ops.mean(ops.square(y - p))), "exact"),
    "a loss an entry": Fault(_small(lambda y, p: ops.square(y - p)), "exact"),
    "a loss [B·2]": Fault(_small(_per_entry), "exact"),
    "a loss over several samples": Fault(
        _small(lambda y, p: ops.square(ops.mean(y - p))), "different"
    ),
    "an untracked weight": Fault(_small(middle=_untracked), "warned"),
    "an unused layer": Fault(_odd("unused_layer"), "exact"),
    "stop_gradient": Fault(_odd("stop_gradient"), "exact"),
    "a frozen layer": Fault(_problem("frozen_layer"), "exact"),
    "an own train_step": Fault(_own_step, "TrainStepError"),
    "a mean in compute_loss": Fault(_problem("compute_loss"), "exact"),
    "repeated ids": Fault(_problem("embedding_repeated_ids"), "exact"),
    "nested inputs and outputs": Fault(_problem("nested_inputs_and_outputs"), "exact"),
    "leading sizes differ": Fault(_with_batch(floats(4, 3), floats(3, 2)), "DataError"),
    "one beside B": Fault(_with_batch(floats(4, 3), floats(1, 2)), "DataError"),
    "one weight a sample, losses of positions": Fault(
        _with_batch(floats(4, 5, 3), floats(4, 5, 2), floats(4), shape=(5, 3)), "DataError"
    ),
    "a batch of one": Fault(_problem("batch_of_one"), "exact"),
    "NaN in a sample": Fault(_poisoned, "named"),
    "negative weights": Fault(_problem("sample_weight_negative"), "exact"),
    "huge weights": Fault(_problem("sample_weight_huge"), "exact"),
    "all weights zero": Fault(_problem("sample_weight_all_zero"), "exact"),
    "BatchNormalization": Fault(_problem("batch_normalization_training"), "different"),
    "centered by hand": Fault(_small(middle=lambda: [layers.Lambda(_centered)]), "different"),
    "SpectralNormalization": Fault(_problem("spectral_normalization"), "exact"),
    "Dice": Fault(_problem("dice"), "different"),
    "a mean over weights": Fault(_problem("mean_with_sample_weight"), "different"),
    "a sum": Fault(_problem("sum"), "different"),
    "a regularizer": Fault(_problem("regularizer_l2"), "exact"),
    "an activity regularizer": Fault(_problem("activity_regularizer"), "exact"),
    "a vector in add_loss": Fault(_problem("add_loss_vector"), "different"),
    "dropout": Fault(_small(middle=lambda: [layers.Dropout(0.4)]), "exact"),
    "mixed_bfloat16": Fault(_small(policy="mixed_bfloat16"), "exact"),
    "mixed_float16": Fault(_small(policy="mixed_float16"), "exact"),
    "accumulated gradients": Fault(_small(options=_accumulating), "exact"),
    "Python code inside": Fault(_odd("python_function"), "exact", ("XLA",)),
    "a loop a sample": Fault(_odd("while_loop"), "exact"),
    "a branch a sample": Fault(_odd("branch"), "exact"),
    "a custom gradient": Fault(_odd("custom_gradient"), "exact"),
    "rematerialized": Fault(_odd("rematerialized"), "exact", ("graph", "XLA")),
    "a gradient penalty": Fault(_odd("gradient_penalty"), "exact"),
    "a tied kernel": Fault(_problem("tied_transposed_kernel"), "exact"),
    "LoRA": Fault(_problem("lora_dense"), "exact"),
}
