"""Trainable activations, nested models, and layers that draw random numbers."""

import keras
from keras import layers, ops, random

from tests.problems._base import Problem, compiled, floats, images, stack

NOISE = ("layer", "noise")


@keras.saving.register_keras_serializable("keras_pergrad_tests")
class Draw(layers.Layer):
    """inputs × (1 + noise/2), the noise from one function of `keras.random`."""

    def __init__(self, distribution, **options):
        super().__init__(**options)
        self.distribution = distribution
        self.seed_generator = random.SeedGenerator(11)

    def call(self, inputs):
        return inputs * (1.0 + 0.5 * _draw(self.distribution, inputs, self.seed_generator))


def _draw(distribution, inputs, seed):
    shape, dtype = ops.shape(inputs), inputs.dtype
    if distribution in ("normal", "truncated_normal", "uniform"):
        return getattr(random, distribution)(shape, dtype=dtype, seed=seed)
    if distribution == "gamma":
        return random.gamma(shape, alpha=2.0, dtype=dtype, seed=seed)
    if distribution == "beta":
        return random.beta(shape, alpha=2.0, beta=3.0, dtype=dtype, seed=seed)
    if distribution == "binomial":
        return random.binomial(shape, counts=5.0, probabilities=0.4, dtype=dtype, seed=seed)
    if distribution == "randint":
        return ops.cast(random.randint(shape, 0, 7, seed=seed), dtype)
    if distribution == "dropout":
        return random.dropout(inputs, 0.4, seed=seed)
    if distribution == "categorical":
        return ops.cast(random.categorical(inputs, inputs.shape[-1], seed=seed), dtype)
    return ops.cast(_two_draws(inputs, seed), dtype)


def _two_draws(inputs, seed):
    """Two draws from one generator: the order of replay matters."""
    first = random.normal(ops.shape(inputs), dtype=inputs.dtype, seed=seed)
    return first * random.uniform(ops.shape(inputs), dtype=inputs.dtype, seed=seed)


def _noisy(make):
    return lambda: [layers.Dense(4, "tanh"), make(), layers.Dense(2, "tanh")]


def _noisy_images(make):
    """The convolution before the noise makes the gradient flow through it."""
    return lambda: [
        layers.Conv2D(3, 1, activation="sigmoid"),
        make(),
        layers.GlobalAveragePooling2D(),
        layers.Dense(2, "tanh"),
    ]


def augmented(name, make, *more) -> Problem:
    """Augmentation of the inputs, as at the top of an image model."""
    chain = lambda: [make(), layers.Conv2D(2, 2, activation="tanh"), layers.Flatten()]  # noqa: E731
    return stack(
        name,
        (6, 6, 3),
        (50,),
        chain,
        tags=(*NOISE, "augmentation", *more),
        x=lambda: images(4, 6, 6, 3, seed=1),
    )


def _nested() -> keras.Model:
    inner_start = keras.Input((3,))
    inner = keras.Model(inner_start, layers.Dense(3, "tanh")(inner_start), name="inner")
    chain = keras.Sequential([keras.Input((3,)), inner, layers.Dense(2, "tanh")], name="chain")
    start = keras.Input((3,))
    return compiled(keras.Model(start, layers.Dense(2)(chain(inner(start)))))


DISTRIBUTIONS = (
    "normal",
    "truncated_normal",
    "uniform",
    "gamma",
    "beta",
    "binomial",
    "randint",
    "dropout",
    "categorical",
    "two_draws",
)
RANDOM_LAYERS = {
    "dropout": lambda: layers.Dropout(0.4, seed=3),
    "gaussian_noise": lambda: layers.GaussianNoise(0.5, seed=3),
    "gaussian_dropout": lambda: layers.GaussianDropout(0.4, seed=3),
    "alpha_dropout": lambda: layers.AlphaDropout(0.4, seed=3),
}
AUGMENTATIONS = {
    "random_brightness": lambda: layers.RandomBrightness(0.3, value_range=(0, 1), seed=3),
    "random_contrast": lambda: layers.RandomContrast(0.5, value_range=(0, 1), seed=3),
    "random_flip": lambda: layers.RandomFlip(seed=3),
    "random_translation": lambda: layers.RandomTranslation(0.3, 0.3, seed=3),
    "random_zoom": lambda: layers.RandomZoom(0.4, seed=3),
    "random_hue": lambda: layers.RandomHue(0.5, value_range=(0, 1), seed=3),
    "random_saturation": lambda: layers.RandomSaturation(0.7, value_range=(0, 1), seed=3),
    "random_sharpness": lambda: layers.RandomSharpness(0.8, value_range=(0, 1), seed=3),
    "random_erasing": lambda: layers.RandomErasing(value_range=(0, 1), seed=3),
    "random_shear": lambda: layers.RandomShear(0.3, 0.3, seed=3),
    "random_perspective": lambda: layers.RandomPerspective(scale=0.5, seed=3),
    "random_gaussian_blur": lambda: layers.RandomGaussianBlur(
        factor=1.0, value_range=(0, 1), seed=3
    ),
    "random_grayscale": lambda: layers.RandomGrayscale(0.5, seed=3),
    "random_invert": lambda: layers.RandomInvert(1.0, value_range=(0, 1), seed=3),
    "random_posterization": lambda: layers.RandomPosterization(3, value_range=(0, 1), seed=3),
    "random_color_degeneration": lambda: layers.RandomColorDegeneration(
        0.7, value_range=(0, 1), seed=3
    ),
    "random_color_jitter": lambda: layers.RandomColorJitter(
        value_range=(0, 1), brightness_factor=0.2, contrast_factor=0.3, seed=3
    ),
    "random_elastic_transform": lambda: layers.RandomElasticTransform(
        scale=0.5, value_range=(0, 1), seed=3
    ),
}
PROBLEMS = (
    stack("prelu", (3,), (2,), lambda: [layers.Dense(2), layers.PReLU()]),
    stack(
        "prelu_shared",
        (3, 2),
        (3, 2),
        lambda: [layers.Dense(2), layers.PReLU(shared_axes=[1])],
    ),
    Problem(
        "nested_models",
        _nested,
        lambda: (floats(4, 3, seed=1), floats(4, 2, seed=2), None),
        frozenset({"layer"}),
    ),
    *(stack(name, (3,), (2,), _noisy(make), tags=NOISE) for name, make in RANDOM_LAYERS.items()),
    stack(
        "spatial_dropout1d",
        (3, 2),
        (3, 2),
        _noisy(lambda: layers.SpatialDropout1D(0.5, seed=3)),
        tags=NOISE,
    ),
    stack(
        "spatial_dropout2d",
        (3, 3, 3),
        (2,),
        _noisy_images(lambda: layers.SpatialDropout2D(0.5, seed=3)),
        tags=NOISE,
    ),
    stack(
        "dropout_noise_shape",
        (3, 2),
        (3, 2),
        _noisy(lambda: layers.Dropout(0.5, noise_shape=(None, 1, 4), seed=3)),
        tags=NOISE,
    ),
    stack(
        "two_dropouts",
        (3,),
        (2,),
        lambda: [
            layers.Dropout(0.3, seed=3),
            layers.Dense(5, "tanh"),
            layers.Dropout(0.3, seed=4),
            layers.Dense(2),
        ],
        tags=NOISE,
    ),
    stack(
        "lstm_dropout",
        (3, 2),
        (3,),
        lambda: [layers.Dense(3, "tanh"), layers.LSTM(3, dropout=0.4, seed=3)],
        tags=(*NOISE, "rnn"),
    ),
    stack(
        "gru_recurrent_dropout",
        (3, 2),
        (3,),
        lambda: [layers.GRU(3, dropout=0.3, recurrent_dropout=0.3, seed=3)],
        tags=(*NOISE, "rnn"),
    ),
    *(
        stack(f"draw_{name}", (3,), (2,), _noisy(lambda name=name: Draw(name)), tags=NOISE)
        for name in DISTRIBUTIONS
    ),
    *(augmented(name, make) for name, make in AUGMENTATIONS.items()),
    # One crop for the whole batch: noise that no sample owns.
    stack(
        "random_crop",
        (7, 7, 3),
        (50,),
        lambda: [layers.RandomCrop(6, 6, seed=3), layers.Conv2D(2, 2), layers.Flatten()],
        tags=(*NOISE, "augmentation", "batch_noise"),
        x=lambda: images(4, 7, 7, 3, seed=1),
    ),
    # Keras multiplies a float32 angle by a float64 image size.
    augmented("random_rotation", lambda: layers.RandomRotation(0.2, seed=3), "float32_only"),
)
