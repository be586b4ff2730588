"""What the Gram matrix `⟨g_i, g_j⟩` tells of all pairs of samples, of each group of weights."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_pergrad.diagnostics._groups import Groups
from keras_pergrad.diagnostics._unweighted import Unweighted
from keras_pergrad.gradients import By, SampleGradients

OF_GRAM = 4  # numbers of each group: see `_of_pairs`
_INF, _NAN = float("inf"), float("nan")


def gram_numbers(g: SampleGradients | Unweighted, groups: Groups, budget: int) -> tf.Tensor:
    """Those numbers, group after group of each, and the pair of the model's largest cosine.

    Args:
        g: the samples' gradients.
        groups: of the weights, the first of which is the model.
        budget: bytes that the matrices may take; if that is too few, the model's are known alone.

    Returns:
        `[4 G + 2]`.
    """
    by: By = "variable" if groups.places("variable") else "layer"
    parts = groups.places(by)

    def of_all() -> tf.Tensor:
        matrices = tf.stack(list(g.gram(by).values()))

        def of(member: tf.Tensor) -> tf.Tensor:  # not a product: a NaN stays in its own group
            inside = tf.where(member[:, None, None], matrices, tf.zeros_like(matrices))
            return _of_pairs(tf.reduce_sum(inside, axis=0))

        members = tf.constant(_members(groups, parts))
        return tf.map_fn(of, members, fn_output_signature=tf.float64)

    def of_model() -> tf.Tensor:
        unknown = tf.fill([len(groups.names) - 1, OF_GRAM + 2], tf.constant(_NAN, tf.float64))
        return tf.concat([_of_pairs(g.gram())[None], unknown], axis=0)

    needed = 8 * len(parts) * tf.cast(tf.convert_to_tensor(g.num_samples), tf.float64) ** 2
    numbers = tf.cond(needed <= budget, of_all, of_model)
    of_groups = tf.reshape(tf.transpose(numbers[:, :OF_GRAM]), [-1])
    return tf.concat([of_groups, numbers[0, OF_GRAM:]], axis=0)


def _members(groups: Groups, parts: list[int]) -> np.ndarray:
    """Which parts, the variables or the layers, are in each group, `[G, P]`."""
    within = groups.matrix.T @ groups.matrix[:, parts]
    return within == groups.matrix[:, parts].sum(axis=0)


def _of_pairs(gram: tf.Tensor) -> tf.Tensor:
    """Of a Gram matrix `[B, B]`: the least inner product of two samples, the effective rank of the
    centred matrix, the largest cosine of two, the mean of all cosines; and the pair of the largest.

    The effective rank is `(Σλ)²/Σλ²` of the eigenvalues, which traces tell without them. Samples
    without a gradient have no cosines.

    Returns:
        `[6]`.
    """
    gram, size = tf.cast(gram, tf.float64), tf.shape(gram)[0]
    with_itself = tf.eye(size, dtype=tf.bool)
    least = tf.reduce_min(tf.where(with_itself, tf.constant(_INF, tf.float64), gram))
    centred = gram - tf.reduce_mean(gram, 0, keepdims=True)
    centred -= tf.reduce_mean(centred, 1, keepdims=True)
    rank = tf.math.divide_no_nan(tf.linalg.trace(centred) ** 2, tf.reduce_sum(centred**2))
    norms = tf.sqrt(tf.linalg.diag_part(gram))
    cosines = tf.math.divide_no_nan(gram, norms[:, None] * norms[None, :])
    count = tf.reduce_sum(tf.cast(norms > 0, tf.float64))
    mean = tf.reduce_sum(tf.where(with_itself, tf.zeros_like(gram), cosines)) / count / (count - 1)
    of_two = tf.where(with_itself, tf.constant(-_INF, tf.float64), cosines)
    at = tf.argmax(tf.reshape(of_two, [-1]), output_type=tf.int32)
    pair = [tf.cast(each, tf.float64) for each in (at // size, at % size)]
    return tf.stack([least, rank, tf.reduce_max(of_two), mean, *pair])
