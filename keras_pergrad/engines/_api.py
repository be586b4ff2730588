"""From a model and a batch, or a run, to sample gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import keras
import tensorflow as tf

from keras_pergrad.engines._engine import Engine, by_name
from keras_pergrad.engines._factored import Factored
from keras_pergrad.engines._first_batch import FirstBatch
from keras_pergrad.engines._jacobian import Jacobian
from keras_pergrad.engines._loop import Loop
from keras_pergrad.engines._separation import Separation, separate
from keras_pergrad.engines._shares import separate_shares
from keras_pergrad.engines._vectorized import Vectorized
from keras_pergrad.errors import PerGradError, PerGradWarning
from keras_pergrad.gradients import Blocks, SampleGradients
from keras_pergrad.runs import Batch, Run, start

DEFAULT_MEMORY_BUDGET = 2**30
ENGINES: dict[str, type[Engine]] = {
    "auto": Factored,
    "factored": Factored,
    "vectorized": Vectorized,
    "jacobian": Jacobian,
    "loop": Loop,
}


def get_engine(engine: str | Engine) -> Engine:
    """The engine of that name; `"auto"` is `factored`."""
    return by_name(engine, ENGINES)


@tf.autograph.experimental.do_not_convert
def per_sample_gradients(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    engine: str | Engine = "auto",
    of: Literal["contribution", "own"] = "contribution",
    training: bool = True,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> SampleGradients:
    """The gradient of every sample of a batch, of any built and compiled Keras model.

    The batch is run once, without a trace: weights, statistics, seeds, metrics and `model.losses`
    are untouched. Works eagerly, where it is traced anew at each call, and inside a `tf.function`.

    Keras' scalar is `L = Σ_i c_i + R`: contributions of the samples with the batch's own
    denominators, and terms `R` that no sample owns (regularizers).

    Args:
        model: the model.
        x, y, sample_weight: one batch, as `fit` takes it; every leaf `[B, ...]`.
        engine: `"auto"`, which is `"factored"`; `"vectorized"`, `"jacobian"`, `"loop"`, or an
            `Engine`.
        of: `"contribution"`: `g_i = B ∇c_i`, so that `mean() + batch_term` is the batch gradient.
            `"own"`: the gradient of the loss of sample `i` run alone through the same loss.
        training: the `training` argument of the model's call.
        memory_budget: bytes that one chunk of samples may need.

    Returns:
        `SampleGradients`. What is not asked for is not computed, but for one thing: that
        contributions add up to the batch gradient is verified when they are made.

    Raises:
        DataError: the leaves of the batch do not fit each other.
        PerGradError: the model is not built, has no loss or no trainable weights.
        UnsupportedError: the engine cannot run this model.
        SeparationError: `of="contribution"` of a loss that is no sum over samples.

    Example:
        >>> import keras, numpy as np, keras_pergrad as pg
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> g = pg.per_sample_gradients(model, np.ones((5, 3)), np.zeros((5, 2)))
        >>> g.squared_norms().shape
        TensorShape([5])
    """
    if of not in ("contribution", "own"):
        raise PerGradError(f"`of` is 'contribution' or 'own'. Received: of={of!r}.")
    expect_memory_budget(memory_budget)
    run = start(model, Batch.of(x, y, sample_weight), training=training, of=of)
    return sample_gradients(run, get_engine(engine), memory_budget)


def expect_memory_budget(memory_budget: Any) -> None:
    """Refuses what is no number of bytes.

    Raises:
        PerGradError: it is not a positive whole number.
    """
    whole = isinstance(memory_budget, int) and not isinstance(memory_budget, bool)
    if not whole or memory_budget <= 0:
        raise PerGradError(
            "`memory_budget` is a positive number of bytes. "
            f"Received: memory_budget={memory_budget!r}."
        )


def sample_gradients(
    run: Run,
    engine: Engine,
    memory_budget: int,
    *,
    verify: bool = True,
    refuse: Callable[[Separation], Blocks] = Separation.insisted,
) -> SampleGradients:
    """The sample gradients of a run that was recorded already.

    Args:
        run: the run.
        engine: how.
        memory_budget: bytes that one chunk of samples may need.
        verify: whether contributions are refused where they do not add up to the batch gradient.
        refuse: is given what is known of that, and answers the blocks to use.
    """
    first = FirstBatch.of(run, engine) if verify else None
    blocks = engine.blocks(run, memory_budget)
    if first is not None and not blocks.are_shares:
        first.settle()
    if run.untracked:
        _warn_of_untracked(run)
    if blocks.are_shares:
        if run.of == "contribution" and verify:
            blocks = refuse(separate_shares(blocks, run, engine.name, first))
    elif run.of == "contribution" and (verify or run.is_opaque):
        blocks = refuse(separate(blocks, run, engine.name))
    paths = unique_paths(run.variables)
    return SampleGradients(blocks, paths, run.batch_term(), run.unconnected, run.remarks)


def _warn_of_untracked(run: Run) -> None:
    shown = ", ".join(map(repr, run.untracked[:5])) + (", …" if len(run.untracked) > 5 else "")
    warnings.warn(
        f"The forward pass or the loss reads trainable weights that the model does not track, so "
        f"that nothing trains them: {shown}. Make them in `__init__` or `build` and keep them in "
        "an attribute that Keras sees, or set `trainable = False`. "
        f"Received: model={run.model.name!r}.",
        PerGradWarning,
        stacklevel=4,
    )


def unique_paths(variables: list[keras.Variable]) -> list[str]:
    """The variables' paths; one that occurs again is told apart by its number."""
    seen: dict[str, int] = {}
    paths = []
    for variable in variables:
        count = seen[variable.path] = seen.get(variable.path, 0) + 1
        paths.append(variable.path if count == 1 else f"{variable.path}#{count}")
    return paths
