"""Recurrent layers: gates, stacks, directions, masks, cells of one's own, and state."""

import keras
import numpy as np
from keras import layers

from tests.problems._base import Problem, compiled, floats, stack, whole

RNN = ("layer", "rnn")


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class MinimalCell(layers.Layer):
    """h' = tanh(x W + h U), the smallest cell that has two weights."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.units = units
        self.state_size = units
        self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")

    def call(self, inputs, states):
        output = keras.ops.tanh(inputs @ self.kernel + states[0] @ self.recurrent)
        return output, [output]


def _padded_ids() -> np.ndarray:
    """Sequences of lengths 1, 2, 3 and 4, padded with zeros at the end."""
    ids = whole(5, 4, 4, seed=1) + 1
    for row, length in enumerate((1, 2, 3, 4)):
        ids[row, length:] = 0
    return ids


def _masked(make):
    def layers_of():
        return [layers.Embedding(6, 3, mask_zero=True), make(), layers.Dense(2)]

    return layers_of


def _masked_sequences() -> list:
    """The second layer consumes the mask. Keras unrolls a masked backward layer wrongly."""
    first = layers.Bidirectional(layers.LSTM(2, return_sequences=True))
    return [layers.Embedding(6, 3, mask_zero=True), first, layers.LSTM(2)]


def _padded_floats() -> np.ndarray:
    x = floats(4, 4, 2, seed=1)
    x[0, 2:] = 0.0
    x[1, 3:] = 0.0
    return x


def _with_initial_state() -> keras.Model:
    start, state = keras.Input((3, 2)), keras.Input((3,))
    first = layers.Dense(3, activation="tanh")(state)
    output = layers.GRU(3)(start, initial_state=first)
    return compiled(keras.Model([start, state], output))


def _stateful() -> keras.Model:
    start = keras.Input(batch_shape=(3, 3, 2))
    return compiled(keras.Model(start, layers.Dense(2)(layers.LSTM(3, stateful=True)(start))))


def _stacked_cells():
    return layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])


def _time_distributed() -> list:
    inner = keras.Sequential([layers.Conv2D(2, 2, activation="tanh"), layers.Flatten()])
    return [layers.TimeDistributed(inner), layers.Dense(2, "tanh")]


PROBLEMS = (
    stack("lstm", (3, 2), (3,), lambda: [layers.LSTM(3)], tags=RNN),
    stack(
        "lstm_after_dense",
        (3, 2),
        (3, 3),
        lambda: [layers.Dense(3, "tanh"), layers.LSTM(3, return_sequences=True)],
        tags=RNN,
    ),
    stack("lstm_unrolled", (3, 2), (2,), lambda: [layers.LSTM(2, unroll=True)], tags=RNN),
    stack("lstm_backwards", (3, 2), (2,), lambda: [layers.LSTM(2, go_backwards=True)], tags=RNN),
    stack(
        "lstm_stacked",
        (3, 2),
        (2,),
        lambda: [layers.LSTM(3, return_sequences=True), layers.LSTM(2)],
        tags=RNN,
    ),
    stack("lstm_masked", (4,), (2,), _masked(lambda: layers.LSTM(3)), tags=RNN, x=_padded_ids),
    stack(
        "lstm_masking_layer",
        (4, 2),
        (2,),
        lambda: [layers.Masking(), layers.LSTM(3), layers.Dense(2)],
        tags=RNN,
        x=_padded_floats,
    ),
    stack("gru", (3, 2), (3,), lambda: [layers.Dense(3, "tanh"), layers.GRU(3)], tags=RNN),
    stack("gru_reset_before", (3, 2), (3,), lambda: [layers.GRU(3, reset_after=False)], tags=RNN),
    stack("gru_masked", (4,), (2,), _masked(lambda: layers.GRU(3)), tags=RNN, x=_padded_ids),
    stack("simple_rnn", (3, 2), (3,), lambda: [layers.SimpleRNN(3)], tags=RNN),
    stack("rnn_custom_cell", (3, 2), (3,), lambda: [layers.RNN(MinimalCell(3))], tags=RNN),
    stack("rnn_stacked_cells", (3, 2), (2,), lambda: [_stacked_cells()], tags=RNN),
    stack(
        "rnn_simple_cell_sequences",
        (3, 2),
        (3, 3),
        lambda: [layers.RNN(layers.SimpleRNNCell(3), return_sequences=True)],
        tags=RNN,
    ),
    stack("bidirectional", (3, 2), (6,), lambda: [layers.Bidirectional(layers.LSTM(3))], tags=RNN),
    stack(
        "bidirectional_masked_gru",
        (4,),
        (2,),
        _masked(lambda: layers.Bidirectional(layers.GRU(2), merge_mode="sum")),
        tags=RNN,
        x=_padded_ids,
    ),
    stack(
        "bidirectional_masked_sequences",
        (4,),
        (2,),
        _masked_sequences,
        tags=RNN,
        x=_padded_ids,
    ),
    Problem(
        "gru_initial_state",
        _with_initial_state,
        lambda: ([floats(4, 3, 2, seed=1), floats(4, 3, seed=3)], floats(4, 3, seed=2), None),
        frozenset(RNN),
    ),
    stack(
        "conv_lstm1d",
        (3, 4, 1),
        (3, 2),
        lambda: [layers.ConvLSTM1D(2, 2)],
        tags=RNN,
        size=3,
    ),
    stack(
        "conv_lstm2d",
        (2, 3, 3, 1),
        (2, 2, 2),
        lambda: [layers.ConvLSTM2D(2, 2)],
        tags=RNN,
        size=3,
    ),
    stack(
        "conv_lstm3d",
        (2, 3, 3, 3, 1),
        (2, 2, 2, 2),
        lambda: [layers.ConvLSTM3D(2, 2)],
        tags=RNN,
        size=3,
    ),
    stack("time_distributed", (3, 3, 3, 1), (3, 2), _time_distributed),
    Problem(
        "lstm_stateful",
        _stateful,
        lambda: (floats(3, 3, 2, seed=1), floats(3, 2, seed=2), None),
        frozenset({*RNN, "needs_batch", "writes_state"}),
    ),
)
