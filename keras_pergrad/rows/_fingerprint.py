"""A number that a row is known by where it has no id: 64 bits, made of all of its bits."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.errors import DataError
from keras_pergrad.rows._order import expect_in_order
from keras_pergrad.rows._pack import is_packed

_HALF = np.uint64(32)  # bits of a word
# The odd constants of SplitMix64 (Steele, Lea, Flood 2014), by which words are told apart.
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def fingerprints(x: Any) -> tf.Tensor:
    """`[B]`, int64: one for each row of the inputs, the same wherever the row's bits are.

    A multilinear hash modulo 2⁶⁴: words times odd pseudorandom numbers, added up. Two rows that
    differ have the same with a probability of about 2⁻³². Works in a graph and under XLA.

    Args:
        x: inputs `[B, ...]`, of numbers.
    """
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    words = [_words(tf.convert_to_tensor(leaf)) for leaf in leaves]
    total: tf.Tensor = tf.zeros([], tf.int64)
    start = 1
    for each in words:
        count = each.shape[1]
        total += tf.reduce_sum(each * tf.constant(_odd(start, count)), axis=1)
        start += count
    return total


def locate(data: Any, found: Any, *, batch_size: int = 1024) -> np.ndarray:
    """Where rows are in the data, by their fingerprints.

    Args:
        data: the inputs as given to `fit`, arrays `[N, ...]`; or a `tf.data.Dataset` of batches in
            a fixed order, of which the inputs are read; or what `pg.with_ids` made of arrays.
        found: `[n]`, fingerprints, as in the `id` column of an outlier table without ids.
        batch_size: rows at a time.

    Returns:
        `[n]`, the place of the first row with each; -1 where there is none, as when rows are
        changed on their way to the model.

    Raises:
        DataError: a dataset that is shuffled, or of rows where batches are wanted; `(x, y)` in the
            place of the inputs.
    """
    of_rows = np.concatenate([np.asarray(fingerprints(x)) for x in _inputs(data, batch_size)])
    values, first = np.unique(of_rows, return_index=True)
    found = np.asarray(found, np.int64)
    if not len(values):
        return np.full(found.shape, -1)
    places = np.minimum(np.searchsorted(values, found), len(values) - 1)
    return np.where(values[places] == found, first[places], -1)


def _inputs(data: Any, batch_size: int) -> Iterator[Any]:
    if isinstance(data, tf.data.Dataset):
        expect_in_order(data)
        _expect_batches(data)
        for batch in data:
            yield keras.utils.unpack_x_y_sample_weight(batch)[0]
        return
    if is_packed(data):
        data = data["x"]
    if isinstance(data, tuple):
        raise DataError(
            "`locate` takes the inputs alone, as what is hashed are they. "
            f"Received: a tuple of {len(data)}."
        )
    sizes = {len(leaf) for leaf in keras.tree.flatten(data)}
    if len(sizes) != 1:
        raise DataError(f"`data` are inputs with one row a sample. Received: rows {sorted(sizes)}.")
    size = sizes.pop()
    for start in range(0, max(size, 1), batch_size):
        rows = slice(start, start + batch_size)
        yield keras.tree.map_structure(functools.partial(_as_fit_gives, rows=rows), data)


def _expect_batches(data: tf.data.Dataset) -> None:
    if _keras.has_batches(data) is False:
        raise DataError(
            "`locate` reads a dataset of batches. Give it with `.batch(n)`. "
            f"Received: elements {data.element_spec}."
        )


def _as_fit_gives(leaf: Any, rows: slice) -> Any:
    """Keras hands arrays of floating-point numbers on in its own `floatx`."""
    found = np.asarray(leaf[rows])
    return found.astype(keras.config.floatx()) if found.dtype.kind == "f" else found


def _words(leaf: tf.Tensor) -> tf.Tensor:
    """A row's bits as whole numbers `[B, k]`, int64, of which the low half tells rows apart."""
    if leaf.dtype == tf.string:
        leaf = tf.strings.to_hash_bucket_fast(leaf, 2**62)
    if leaf.dtype == tf.bool:
        leaf = tf.cast(leaf, tf.uint8)
    count = leaf.shape[1:].num_elements()
    if count is None:
        raise DataError(
            "A fingerprint needs rows of a known shape. Give rows ids with `pg.with_ids`, or pad "
            f"them. Received: rows of shape {leaf.shape[1:]}."
        )
    # A product with an odd number differs only from the lowest bit that does, and of a double that
    # is often one of the first. So words are mixed, one to one, before they are added up.
    whole = _whole_words(tf.reshape(leaf, [-1, count])) * tf.constant(_GOLDEN, tf.uint64)
    mixed = tf.bitwise.bitwise_xor(whole, tf.bitwise.right_shift(whole, _HALF))
    return tf.bitcast(mixed, tf.int64)


def _whole_words(rows: tf.Tensor) -> tf.Tensor:
    """Rows `[B, n]` of any dtype as `[B, ⌈bytes/8⌉]`, uint64, the last filled up with zeros."""
    if rows.dtype.is_complex:
        rows = tf.stack([tf.math.real(rows), tf.math.imag(rows)], axis=-1)
        rows = tf.reshape(rows, [-1, rows.shape[1] * 2])
    each = 8 // rows.dtype.size
    count = -(-rows.shape[1] // each)
    rows = tf.pad(rows, [[0, 0], [0, count * each - rows.shape[1]]])
    if each > 1:
        rows = tf.reshape(rows, [-1, count, each])
    return tf.bitcast(rows, tf.uint64)


def _odd(start: int, count: int) -> np.ndarray:
    """Pseudorandom odd numbers, by SplitMix64 of a counter."""
    with np.errstate(over="ignore"):
        z = np.arange(start, start + count, dtype=np.uint64) * np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX_2)
        return ((z ^ (z >> np.uint64(31))) | np.uint64(1)).astype(np.int64)
