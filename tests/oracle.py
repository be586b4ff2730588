"""A slow oracle that shares no code with the package: plain Keras, one sample at a time.

Every function leaves the model, its seeds, its statistics and its metrics as they were.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf
from keras import tree

Gradients = list[np.ndarray]


def every_variable(model: keras.Model) -> list[keras.Variable]:
    """Weights, statistics, seeds, metrics, states of RNNs and of the optimizer, each once."""
    groups = [model.variables, model.metrics_variables, _rnn_states(model)]
    if model.optimizer is not None:
        groups.append(model.optimizer.variables)
    return list({id(v): v for group in groups for v in group}.values())


def _rnn_states(model: keras.Model) -> list[keras.Variable]:
    """What stateful recurrent layers remember; Keras does not list it among their variables."""
    recurrent = [each for each in model._flatten_layers() if isinstance(each, keras.layers.RNN)]
    states = keras.tree.flatten([layer.states for layer in recurrent if layer.stateful])
    return [state for state in states if state is not None]


def state_of(model: keras.Model) -> list[np.ndarray]:
    """Copies of the values of `every_variable`."""
    return [v.numpy() for v in every_variable(model)]


@contextmanager
def expect_unchanged(model: keras.Model) -> Iterator[None]:
    """Fail if a variable has another value at the end. Metrics that Keras builds late may come."""
    saved = [(v, v.numpy()) for v in every_variable(model)]
    yield
    for variable, value in saved:
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)


@contextmanager
def unchanged(model: keras.Model) -> Iterator[None]:
    """Restore every variable at the end."""
    saved = [(v, v.numpy()) for v in every_variable(model)]
    try:
        yield
    finally:
        for variable, value in saved:
            variable.assign(value)


def loss_and_gradients(model, x, y, sample_weight, of_samples=None) -> tuple[float, Gradients]:
    """One training-mode forward pass, `compute_loss`, one tape; the state is restored.

    `of_samples` ([B]) multiplies the terms of every sample, on top of `sample_weight`.
    """
    variables = model.trainable_variables
    x, y, sample_weight = tree.map_structure(_tensor, (x, y, sample_weight))
    with unchanged(model), tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        weight = _per_term(of_samples, sample_weight, y_pred)
        loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight, training=True)
    gradients = tape.gradient(loss, [v.value for v in variables])
    return float(np.sum(loss)), [_array(g, v) for g, v in zip(gradients, variables, strict=True)]


def _per_term(of_samples, sample_weight, y_pred):
    """Weights of samples in the shape of the given weights, or of the losses of each output."""
    if of_samples is None:
        return sample_weight
    if sample_weight is not None:
        return sample_weight * of_samples.reshape(-1, *[1] * (sample_weight.ndim - 1))
    return tree.map_structure(
        lambda output: of_samples.reshape(-1, *[1] * max(output.ndim - 2, 0)), y_pred
    )


def batch_gradient(model, x, y, sample_weight=None) -> Gradients:
    """The gradient that `model.fit` would hand to the optimizer."""
    return loss_and_gradients(model, x, y, sample_weight)[1]


def regularizer_gradient(model) -> Gradients:
    """The gradient of the weight regularizers, which no sample owns."""
    variables = model.trainable_variables
    terms = [v for v in variables if v.regularizer is not None]
    if not terms:
        return [np.zeros(v.shape, v.dtype) for v in variables]
    with tf.GradientTape() as tape:
        total = tf.add_n([v.regularizer(v) for v in terms])
    gradients = tape.gradient(total, [v.value for v in variables])
    return [_array(g, v) for g, v in zip(gradients, variables, strict=True)]


def own_gradients(model, x, y, sample_weight=None) -> Gradients:
    """[B, *shape] per variable: the loss of each sample run alone, without regularizers."""
    shared = regularizer_gradient(model)
    rows = []
    for i in range(number_of_samples(x)):
        sample = rows_of((x, y, sample_weight), slice(i, i + 1))
        gradients = loss_and_gradients(model, *sample)[1]
        rows.append([g - r for g, r in zip(gradients, shared, strict=True)])
    return [np.stack(of_one) for of_one in zip(*rows, strict=True)]


def contributions_by_weight(model, x, y, sample_weight=None) -> Gradients:
    """[B, *shape]: B × the gradient of sample i's term, found with one-hot sample weights.

    The batch, its draws and its masks stay whole, only the terms of the other samples are
    multiplied by zero. Holds for losses in which the sample weights enter linearly.
    """
    size, shared, rows = number_of_samples(x), regularizer_gradient(model), []
    for one_hot in size * np.eye(size, dtype=keras.config.floatx()):
        gradients = loss_and_gradients(model, x, y, sample_weight, one_hot)[1]
        rows.append([g - r for g, r in zip(gradients, shared, strict=True)])
    return [np.stack(of_one) for of_one in zip(*rows, strict=True)]


def rows_of(data, rows):
    """The given rows of every array in a nested structure; None stays None."""
    return tree.map_structure(lambda leaf: None if leaf is None else leaf[rows], data)


def number_of_samples(x) -> int:
    """Length of the first axis of the first leaf."""
    return len(tree.flatten(x)[0])


def global_norm(gradients: Gradients) -> float:
    """The largest entry over all variables and samples."""
    return max((float(np.max(np.abs(g))) for g in gradients if g.size), default=0.0)


def largest_difference(left: Gradients, right: Gradients) -> float:
    """The largest absolute difference over all variables; infinite when anything is NaN."""
    for a, b in zip(left, right, strict=True):
        assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    worst = max(float(np.max(np.abs(a - b))) for a, b in zip(left, right, strict=True) if a.size)
    return worst if np.isfinite(worst) else float("inf")


def _tensor(leaf):
    return None if leaf is None else tf.convert_to_tensor(leaf)


def _array(gradient, variable) -> np.ndarray:
    if gradient is None:
        return np.zeros(variable.shape, variable.dtype)
    return tf.convert_to_tensor(gradient).numpy()
