"""Recurrent layers: found, and unrolled."""

from __future__ import annotations

from collections.abc import Callable

import keras

from keras_pergrad import _keras


def recurrent_layers(model: keras.Model) -> list[keras.Layer]:
    """Every layer that steps through time, those wrapped by `Bidirectional` included."""
    return [layer for layer in _keras.layers_of(model) if isinstance(layer, keras.layers.RNN)]


def unroll_recurrent_layers(model: keras.Model) -> None:
    """Makes recurrent layers step unrolled, to be undone by `attributes_kept`.

    Unrolled while tracing, a recurrent layer is the same computation without a loop: what
    `tf.vectorized_map` (tensorflow issue 43904) and XLA need. Backward ones are turned round first.
    """
    for layer in recurrent_layers(model):
        layer.__dict__["unroll"] = True
        if layer.go_backwards:
            layer.__dict__["inner_loop"] = _reversed_first(layer, layer.inner_loop)


def _reversed_first(layer: keras.Layer, original: Callable) -> Callable:
    """A backward layer's loop as a forward one over reversed time.

    Keras 3.15 unrolls a backward layer with a mask wrongly: it zeroes the reversed outputs by the
    mask in its old order (`zero_output_for_mask`, which Bidirectional sets).
    """

    def inner_loop(sequences, initial_state, mask, training=False):
        layer.__dict__["go_backwards"] = False
        try:
            sequences = keras.ops.flip(sequences, axis=1)
            mask = None if mask is None else keras.ops.flip(mask, axis=1)
            return original(sequences, initial_state, mask, training=training)
        finally:
            layer.__dict__["go_backwards"] = True

    return inner_loop
