"""Every row of Keras' table of scalar losses: denominators, masks, weights, added terms."""

import keras
import numpy as np
from keras import layers, losses, ops

from tests.problems._base import Problem, compiled, floats, whole

B, T = 4, 3


def _problem(name, model, batch, *tags, ratio=None, loss="mse", **options) -> Problem:
    """`ratio`: contribution gradient / own gradient, a number or [B] numbers, if there is one."""

    def build() -> keras.Model:
        made = loss() if callable(loss) and not isinstance(loss, str) else loss
        return compiled(model(), made, **options)

    weights = None if ratio is None else (lambda: np.broadcast_to(ratio, (B,)))
    return Problem(name, build, batch, frozenset({"loss", *tags}), weights)


def _vectors() -> keras.Model:
    start = keras.Input((3,))
    return keras.Model(start, layers.Dense(2)(layers.Dense(4, "tanh")(start)))


def _sequences() -> keras.Model:
    start = keras.Input((T, 2))
    return keras.Model(start, layers.Dense(2)(layers.Dense(3, "tanh")(start)))


def _masked() -> keras.Model:
    """Outputs [B, T, 2] that carry the mask of the embedding."""
    start = keras.Input((T,), dtype="int32")
    return keras.Model(start, layers.Dense(2)(layers.Embedding(6, 3, mask_zero=True)(start)))


def _classes() -> keras.Model:
    start = keras.Input((T, 2))
    return keras.Model(start, layers.Dense(5)(layers.Dense(3, "tanh")(start)))


def _sigmoid() -> keras.Model:
    start = keras.Input((3, 3, 1))
    return keras.Model(start, layers.Conv2D(1, 2, activation="sigmoid")(start))


def _positive() -> keras.Model:
    start = keras.Input((3,))
    return keras.Model(start, layers.Dense(4, "softmax")(layers.Dense(4, "tanh")(start)))


def _logits() -> keras.Model:
    start = keras.Input((3,))
    return keras.Model(start, layers.Dense(4)(layers.Dense(4, "tanh")(start)))


def _two_heads() -> keras.Model:
    """One masked output [B, T, 2] and one pooled output [B, 2]."""
    words, numbers = keras.Input((T,), dtype="int32"), keras.Input((3,))
    hidden = layers.Embedding(6, 3, mask_zero=True)(words)
    other = layers.Embedding(6, 2, mask_zero=True)(words[:, ::-1])
    per_word = layers.Dense(2, name="words")(hidden)
    reverse = layers.Dense(2, name="reversed")(other)
    pooled = layers.Dense(2, name="pooled")(layers.Dense(3, "tanh")(numbers))
    return keras.Model([words, numbers], [per_word, reverse, pooled])


def _regularized(**options):
    def model() -> keras.Model:
        start = keras.Input((3,))
        hidden = layers.Dense(4, "tanh", **options)(start)
        return keras.Model(start, layers.Dense(2, **options)(hidden))

    return model


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class AddsLoss(layers.Layer):
    """Adds the squares of its inputs: a vector [B], their mean, or their sum."""

    def __init__(self, form, **options):
        super().__init__(**options)
        self.form = form

    def call(self, inputs):
        squares = ops.sum(ops.square(inputs), axis=-1)
        reduce = {"vector": lambda v: v, "mean": ops.mean, "sum": ops.sum}[self.form]
        self.add_loss(reduce(squares))
        return inputs


def _added(form):
    def model() -> keras.Model:
        start = keras.Input((3,))
        return keras.Model(start, AddsLoss(form)(layers.Dense(4, "tanh")(start)))

    return model


def _x_y():
    return floats(B, 3, seed=1), floats(B, 2, seed=2), None


def _x_only():
    return floats(B, 3, seed=1), None, None


def _weighted(*weights):
    return lambda: (*_x_y()[:2], np.asarray(weights, keras.config.floatx()))


def _sequence(weights=None):
    def batch():
        made = None if weights is None else np.asarray(weights, keras.config.floatx())
        return floats(B, T, 2, seed=1), floats(B, T, 2, seed=2), made

    return batch


PADDED = np.array([[1, 0, 0], [2, 3, 0], [4, 5, 1], [3, 0, 0]], "int32")
KEPT = (PADDED != 0).sum(axis=1)
LABELS = np.array([[0, 1, 2], [0, 0, 3], [4, 1, 1], [2, 0, 4]], "int32")
LABELLED = (LABELS != 0).sum(axis=1)
S = np.array([0.5, 2.0, 1.0, 3.0])
ST = np.array([[1.0, 0.0, 2.0], [0.5, 1.0, 1.0], [0.0, 0.0, 3.0], [2.0, 1.0, 0.5]])
CLASS_WEIGHT = {0: 0.5, 1: 2.0, 2: 3.0}
CLASSES = np.array([2, 0, 1, 1], "int32")


def _padded(weights=None):
    def batch():
        made = None if weights is None else np.asarray(weights, keras.config.floatx())
        return PADDED, floats(B, T, 2, seed=2), made

    return batch


def _labels():
    return floats(B, T, 2, seed=1), LABELS, None


def _class_weighted():
    weights = np.array([CLASS_WEIGHT[c] for c in CLASSES], keras.config.floatx())
    return floats(B, 3, seed=1), CLASSES, weights


def _grids():
    truth = whole(2, B, 2, 2, 1, seed=2).astype(keras.config.floatx())
    return floats(B, 3, 3, 1, seed=1), truth, None


def _probabilities():
    truth = np.abs(floats(B, 4, seed=2)) + 0.1
    return floats(B, 3, seed=1), truth / truth.sum(axis=1, keepdims=True), None


def _three_heads():
    words, numbers = np.array([[1, 0, 0], [2, 3, 0], [4, 5, 1], [3, 4, 0]]), floats(B, 3, seed=1)
    targets = [floats(B, T, 2, seed=2), floats(B, T, 2, seed=3), floats(B, 2, seed=4)]
    return [words.astype("int32"), numbers], targets, None


def _ctc_model() -> keras.Model:
    start = keras.Input((5, 2))
    return keras.Model(start, layers.Dense(4)(layers.Dense(3, "tanh")(start)))


def _ctc():
    return floats(B, 5, 2, seed=1), whole(3, B, 2, seed=2) + 1, None


def _embeddings_of_classes():
    return floats(B, 3, seed=1), np.array([0, 1, 0, 1], "int32"), None


def _softmax_loss():
    return losses.SparseCategoricalCrossentropy(from_logits=True)


def _named(name, loss) -> Problem:
    """A plain [B] loss of Keras on probabilities."""
    return _problem(name, _positive, _probabilities, ratio=1.0, loss=loss)


def _regularized_mask() -> keras.Model:
    start = keras.Input((T,), dtype="int32")
    hidden = layers.Embedding(6, 3, mask_zero=True, embeddings_regularizer="l2")(start)
    return keras.Model(start, layers.Dense(2, kernel_regularizer="l2")(hidden))


PROBLEMS = (
    _problem("mse", _vectors, _x_y, ratio=1.0),
    _problem("mse_sequences", _sequences, _sequence(), ratio=1.0),
    _named("binary_crossentropy", losses.BinaryCrossentropy),
    _named("categorical_crossentropy", losses.CategoricalCrossentropy),
    _named("label_smoothing", lambda: losses.CategoricalCrossentropy(label_smoothing=0.1)),
    _named("categorical_focal_crossentropy", losses.CategoricalFocalCrossentropy),
    _named("kl_divergence", losses.KLDivergence),
    _named("poisson", losses.Poisson),
    _named("huber", lambda: losses.Huber(0.2)),
    _named("log_cosh", losses.LogCosh),
    _named("cosine_similarity", losses.CosineSimilarity),
    _problem(
        "ctc",
        _ctc_model,
        _ctc,
        "own_terms",
        "partly_float32",
        "loop_only",
        ratio=1.0,
        loss=losses.CTC,
    ),
    _problem("sample_weight", _vectors, _weighted(*S), ratio=1.0),
    _problem("sample_weight_column", _vectors, _weighted(*S[:, None]), ratio=1.0),
    _problem("sample_weight_zero", _vectors, _weighted(0.0, 1.0, 0.0, 2.0), ratio=1.0),
    _problem("sample_weight_all_zero", _vectors, _weighted(0.0, 0.0, 0.0, 0.0), ratio=1.0),
    _problem("sample_weight_negative", _vectors, _weighted(-1.0, 1.0, 0.5, 2.0), ratio=1.0),
    _problem("sample_weight_huge", _vectors, _weighted(1e4, 1.0, 0.5, 2.0), ratio=1.0),
    _problem("sample_weight_positions", _sequences, _sequence(ST), ratio=1.0),
    _problem("sample_weight_column_on_positions", _sequences, _sequence(S[:, None]), ratio=1.0),
    _problem("class_weight", _logits, _class_weighted, ratio=1.0, loss=_softmax_loss),
    _problem("mask", _masked, _padded(), "not_equivalent", "mask", ratio=B * KEPT / KEPT.sum()),
    _problem(
        "mask_and_weights",
        _masked,
        _padded(S[:, None]),
        "not_equivalent",
        "mask",
        ratio=B * KEPT / KEPT.sum(),
    ),
    _problem(
        "mask_sum",
        _masked,
        _padded(),
        "not_equivalent",
        "mask",
        ratio=B,
        loss=lambda: losses.MeanSquaredError(reduction="sum"),
    ),
    _problem(
        "ignore_class",
        _classes,
        _labels,
        "not_equivalent",
        "mask",
        ratio=B * LABELLED / LABELLED.sum(),
        loss=lambda: losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0),
    ),
    _problem(
        "sum",
        _sequences,
        _sequence(),
        "not_equivalent",
        ratio=B,
        loss=lambda: losses.MeanSquaredError(reduction="sum"),
    ),
    _problem(
        "mean_with_sample_weight",
        _vectors,
        _weighted(*S),
        "not_equivalent",
        "own_terms",
        ratio=B * S / S.sum(),
        loss=lambda: losses.MeanSquaredError(reduction="mean_with_sample_weight"),
    ),
    _problem(
        "mean_with_sample_weight_positions",
        _sequences,
        _sequence(ST),
        "not_equivalent",
        "own_terms",
        ratio=B * ST.sum(axis=1) / ST.sum(),
        loss=lambda: losses.MeanSquaredError(reduction="mean_with_sample_weight"),
    ),
    _problem(
        "mean_with_sample_weight_masked",
        _masked,
        _padded(ST),
        "not_equivalent",
        "own_terms",
        ratio=B * (ST * (PADDED != 0)).sum(axis=1) / (ST * (PADDED != 0)).sum(),
        loss=lambda: losses.MeanSquaredError(reduction="mean_with_sample_weight"),
    ),
    _problem(
        "no_reduction",
        _vectors,
        _x_y,
        "not_equivalent",
        ratio=B,
        loss=lambda: losses.MeanSquaredError(reduction=None),
    ),
    _problem(
        "several_outputs_weights_masks",
        _two_heads,
        _three_heads,
        "not_equivalent",
        "mask",
        loss=["mse", "mse", "mse"],
        loss_weights=[0.5, 2.0, 3.0],
    ),
    _problem("list_of_losses_on_one_output", _vectors, _x_y, ratio=1.0, loss=["mse", "mae"]),
    _problem(
        "add_loss_vector",
        _added("vector"),
        _x_only,
        "not_equivalent",
        "own_terms",
        ratio=B,
        loss=None,
    ),
    _problem(
        "add_loss_mean", _added("mean"), _x_only, "own_terms", "scalar_terms", ratio=1.0, loss=None
    ),
    _problem(
        "add_loss_sum",
        _added("sum"),
        _x_only,
        "not_equivalent",
        "own_terms",
        "scalar_terms",
        ratio=B,
        loss=None,
    ),
    _problem(
        "add_loss_mean_beside_mse",
        _added("mean"),
        lambda: (floats(B, 3, seed=1), floats(B, 4, seed=2), None),
        "own_terms",
        "scalar_terms",
        ratio=1.0,
    ),
    _problem(
        "add_loss_vector_beside_mse",
        _added("vector"),
        lambda: (floats(B, 3, seed=1), floats(B, 4, seed=2), None),
        "not_equivalent",
        "own_terms",
    ),
    _problem(
        "activity_regularizer",
        _regularized(activity_regularizer="l2"),
        _x_y,
        "own_terms",
        "scalar_terms",
        ratio=1.0,
    ),
    _problem(
        "activity_regularization_layer",
        lambda: keras.Sequential(
            [keras.Input((3,)), layers.Dense(2, "tanh"), layers.ActivityRegularization(0.1, 0.2)]
        ),
        _x_y,
        "own_terms",
        "scalar_terms",
        ratio=1.0,
    ),
    _problem("regularizer_l2", _regularized(kernel_regularizer="l2"), _x_y, ratio=1.0),
    _problem("regularizer_l1", _regularized(kernel_regularizer="l1"), _x_y, ratio=1.0),
    _problem(
        "regularizers_and_weights",
        _regularized(kernel_regularizer=keras.regularizers.L1L2(0.01, 0.02), bias_regularizer="l2"),
        _weighted(*S),
        ratio=1.0,
    ),
    _problem(
        "regularizer_and_mask",
        _regularized_mask,
        _padded(),
        "not_equivalent",
        "mask",
        ratio=B * KEPT / KEPT.sum(),
    ),
    _problem("dice", _sigmoid, _grids, "no_decomposition", "not_equivalent", loss=losses.Dice),
    _problem(
        "dice_per_sample", _sigmoid, _grids, "own_terms", loss=lambda: losses.Dice(axis=(1, 2, 3))
    ),
    _problem(
        "tversky", _sigmoid, _grids, "no_decomposition", "not_equivalent", loss=losses.Tversky
    ),
    _problem(
        "circle",
        _vectors,
        _embeddings_of_classes,
        "no_decomposition",
        "not_equivalent",
        loss=losses.Circle,
    ),
)
