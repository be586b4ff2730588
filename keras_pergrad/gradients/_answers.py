"""What can be asked of the samples of one block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_pergrad.gradients._blocks import Block


def squared_norms(block: Block) -> tf.Tensor:
    """`‖g_i‖²` in each variable, `[b, V]`."""
    return _columns([factor.squared_norms() for factor in block.factors])


def dots(block: Block, vectors: Sequence[tf.Tensor]) -> tf.Tensor:
    """`⟨g_i, v⟩` in each variable, `[b, V]`."""
    pairs = zip(block.factors, vectors, strict=True)
    return _columns([factor.dot(vector) for factor, vector in pairs])


def projections(block: Block, means: Sequence[tf.Tensor]) -> tf.Tensor:
    """`⟨g_i, ḡ⟩` in each variable, `[b, V]`: with the mean or, where that costs less, as the mean
    of the inner products with all samples."""
    found = []
    for factor, mean in zip(block.factors, means, strict=True):
        if block.is_whole and factor.meets_few:
            found.append(tf.reduce_mean(factor.gram(factor), axis=1))
        else:
            found.append(factor.dot(mean))
    return _columns(found)


def inner(mine: Block, theirs: Block) -> tf.Tensor:
    """`⟨g_i, h_j⟩` in all variables, with the samples of two blocks, `[b, c]`."""
    return tf.add_n(_inner_products(mine, theirs))


def inner_by_group(mine: Block, theirs: Block, groups: Sequence[Sequence[int]]) -> tf.Tensor:
    """The same in each group of variables, `[b, c, G]`."""
    found = _inner_products(mine, theirs)
    return tf.stack([tf.add_n([found[k] for k in group]) for group in groups], axis=2)


def sums(block: Block, weights: tf.Tensor | None = None) -> list[tf.Tensor]:
    """`Σ_i w_i g_i`, one tensor a variable; `weights [B]` of all samples, None for ones."""
    if weights is not None:
        weights = tf.gather(weights, block.indices)
    return [factor.weighted_sum(weights) for factor in block.factors]


def sums_of_squares(block: Block) -> list[tf.Tensor]:
    """`Σ_i g_i∘g_i`, one tensor a variable."""
    return [factor.sum_of_squares() for factor in block.factors]


def written_out(k: int, dtype: tf.DType) -> Callable[[Block], tf.Tensor]:
    """Gives the gradients of variable `k` of a block, `[b, *weight.shape]`."""
    return lambda block: tf.cast(block.factors[k].materialize(), dtype)


def _inner_products(mine: Block, theirs: Block) -> list[tf.Tensor]:
    pairs = zip(mine.factors, theirs.factors, strict=True)
    return _of_one_dtype([one.gram(other) for one, other in pairs])


def _columns(values: list[tf.Tensor]) -> tf.Tensor:
    """Of `V` times `[b]`, `[b, V]`."""
    return tf.stack(_of_one_dtype(values), axis=1)


def _of_one_dtype(values: list[tf.Tensor]) -> list[tf.Tensor]:
    widest = tf.float64 if any(each.dtype == tf.float64 for each in values) else tf.float32
    return [tf.cast(each, widest) for each in values]
