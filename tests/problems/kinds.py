"""Kinds of models: how they are written, what goes in and out, where the loss is."""

import keras
from keras import layers, ops

from tests.problems._base import Problem, compiled, floats, images

KIND = frozenset({"kind"})
NOISY = frozenset({"kind", "noise", "own_terms"})


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class CallStyle(keras.Model):
    """Subclass with a `call`."""

    def __init__(self, **options):
        super().__init__(**options)
        self.first = layers.Dense(4, activation="tanh")
        self.second = layers.Dense(2)

    def call(self, inputs, training=False):
        return self.second(self.first(inputs))


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class FunctionalStyle(keras.Model):
    """Subclass whose `__init__` builds a functional graph."""

    def __init__(self, width=4, **options):
        start = keras.Input((3,))
        hidden = layers.Dense(width, activation="tanh")(start)
        super().__init__(start, layers.Dense(2)(hidden), **options)


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class OwnLoss(CallStyle):
    """The loss in `compute_loss`, with the inputs as targets: `y` is None."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.sum(ops.square(y_pred - x[:, :2]), axis=-1))


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class OwnSumLoss(CallStyle):
    """The same with a sum over the batch."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.sum(ops.square(y_pred - x[:, :2]))


class VAE(keras.Model):
    """A small VAE. Subclasses say where its loss is."""

    def __init__(self, **options):
        super().__init__(**options)
        self.encoder = layers.Dense(4, activation="tanh")
        self.mean, self.log_variance = layers.Dense(2), layers.Dense(2)
        self.decoder = layers.Dense(5, activation="sigmoid")
        self.seed_generator = keras.random.SeedGenerator(7)

    def build(self, shape):
        self.encoder.build(shape)
        self.mean.build((None, 4))
        self.log_variance.build((None, 4))
        self.decoder.build((None, 2))

    def encode(self, inputs):
        hidden = self.encoder(inputs)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        noise = keras.random.normal(ops.shape(mean), dtype=mean.dtype, seed=self.seed_generator)
        return mean, log_variance, mean + ops.exp(0.5 * log_variance) * noise


def divergence(mean, log_variance):
    """[B]: KL divergence from the standard normal."""
    return -0.5 * ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance), axis=-1)


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class VAEComputeLoss(VAE):
    """Both terms in `compute_loss`, which runs the encoder's outputs again through y_pred."""

    def call(self, inputs, training=False):
        mean, log_variance, code = self.encode(inputs)
        return {"mean": mean, "log_variance": log_variance, "image": self.decoder(code)}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        image = ops.sum(ops.square(x - y_pred["image"]), axis=-1)
        return ops.mean(image + divergence(y_pred["mean"], y_pred["log_variance"]))


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class VAEAddLoss(VAE):
    """The divergence through `add_loss`, as a mean; the reconstruction through `compile`."""

    def call(self, inputs, training=False):
        mean, log_variance, code = self.encode(inputs)
        self.add_loss(ops.mean(divergence(mean, log_variance)))
        return self.decoder(code)


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class VAENoiseInLoss(VAE):
    """The noise is drawn inside `compute_loss`."""

    def call(self, inputs, training=False):
        return self.encoder(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        mean, log_variance, code = self.encode(x)
        image = ops.sum(ops.square(x - self.decoder(code)), axis=-1)
        return ops.mean(image + divergence(mean, log_variance) + ops.sum(y_pred, axis=-1))


def _subclass(make, loss="mse"):
    def build() -> keras.Model:
        model = compiled(make(), loss)
        model(floats(2, 3, seed=1))
        return model

    return build


def _vae(make, loss=None):
    def build() -> keras.Model:
        model = compiled(make(), loss)
        model(floats(2, 5, seed=1))
        return model

    return build


def _functional() -> keras.Model:
    start = keras.Input((3,))
    return compiled(keras.Model(start, layers.Dense(2)(layers.Dense(4, "tanh")(start))))


def _sequential() -> keras.Model:
    return compiled(keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]))


def _nested_dicts() -> keras.Model:
    inputs = {
        "pair": [keras.Input((3,), name="left"), keras.Input((2,), name="right")],
        "one": keras.Input((2,), name="one"),
    }
    left, right = inputs["pair"]
    hidden = layers.Dense(3, "tanh")(layers.Concatenate()([left, right, inputs["one"]]))
    outputs = {"a": layers.Dense(2, name="a")(hidden), "b": layers.Dense(1, name="b")(hidden)}
    return compiled(keras.Model(inputs, outputs), {"a": "mse", "b": "mse"})


def _several_outputs() -> keras.Model:
    start = keras.Input((3,))
    hidden = layers.Dense(4, "tanh")(start)
    outputs = [layers.Dense(2)(hidden), layers.Dense(1, activation="sigmoid")(hidden)]
    return compiled(
        keras.Model(start, outputs), ["mse", "binary_crossentropy"], loss_weights=[1.0, 0.3]
    )


def _frozen() -> keras.Model:
    start = keras.Input((3,))
    frozen = layers.Dense(4, "tanh")
    outputs = layers.Dense(2)(frozen(layers.Dense(3, "tanh")(start)))
    frozen.trainable = False
    return compiled(keras.Model(start, outputs))


def _without_gradient() -> keras.Model:
    """The kernel and bias behind `stop_gradient` get no gradient at all."""
    start = keras.Input((3,))
    stopped = ops.stop_gradient(layers.Dense(4, name="stopped")(start))
    return compiled(keras.Model(start, layers.Dense(2)(stopped)))


def _constant_target() -> keras.Model:
    start = keras.Input((2, 3))
    return compiled(keras.Model(start, ops.mean(layers.Dense(1)(start), axis=(1, 2))))


def _x_y(*target):
    return lambda: (floats(4, 3, seed=1), floats(4, *target, seed=2), None)


def _nested_batch():
    x = {"pair": [floats(4, 3, seed=1), floats(4, 2, seed=3)], "one": floats(4, 2, seed=4)}
    return x, {"a": floats(4, 2, seed=2), "b": floats(4, 1, seed=5)}, None


def _two_targets():
    target = (floats(4, 1, seed=3) > 0).astype(keras.config.floatx())
    return floats(4, 3, seed=1), [floats(4, 2, seed=2), target], None


def _images_only():
    return images(4, 5, seed=1), None, None


def _images_twice():
    x = _images_only()[0]
    return x, x, None


PROBLEMS = (
    Problem("functional", _functional, _x_y(2), KIND),
    Problem("functional_style_subclass", lambda: compiled(FunctionalStyle()), _x_y(2), KIND),
    Problem("call_style_subclass", _subclass(CallStyle), _x_y(2), KIND),
    Problem("sequential", _sequential, _x_y(2), KIND),
    Problem("nested_inputs_and_outputs", _nested_dicts, _nested_batch, KIND),
    Problem("several_outputs", _several_outputs, _two_targets, KIND),
    Problem("frozen_layer", _frozen, _x_y(2), KIND),
    Problem("weight_without_gradient", _without_gradient, _x_y(2), KIND),
    Problem(
        "scalar_outputs",
        _constant_target,
        lambda: (floats(4, 2, 3, seed=1), floats(4, seed=2), None),
        KIND | {"own_terms"},  # Keras averages over [B]: the weights meet a scalar
    ),
    Problem(
        "compute_loss",
        _subclass(OwnLoss, loss=None),
        lambda: (floats(4, 3, seed=1), None, None),
        KIND | {"own_terms"},
    ),
    Problem(
        "compute_loss_sum",
        _subclass(OwnSumLoss, loss=None),
        lambda: (floats(4, 3, seed=1), None, None),
        KIND | {"own_terms", "not_equivalent"},
    ),
    Problem("vae_compute_loss", _vae(VAEComputeLoss), _images_only, NOISY),
    Problem(
        "vae_add_loss",
        _vae(VAEAddLoss, "binary_crossentropy"),
        _images_twice,
        NOISY | {"scalar_terms"},
    ),
    Problem("vae_noise_in_loss", _vae(VAENoiseInLoss), _images_only, NOISY),
    Problem(
        "batch_of_one",
        _functional,
        lambda: (floats(1, 3, seed=1), floats(1, 2, seed=2), None),
        KIND,
    ),
    Problem(
        "batch_of_five",
        _functional,
        lambda: (floats(5, 3, seed=1), floats(5, 2, seed=2), None),
        KIND,
    ),
)
