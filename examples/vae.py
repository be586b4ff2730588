"""A convolutional variational autoencoder whose per-sample gradients are checked while it trains.

    python examples/vae.py                      # scikit-learn's digits, 8 x 8 pixels, no network
    python examples/vae.py --data mnist         # MNIST through Keras' loader
    python examples/vae.py --data mnist --data-dir DIR   # the four idx files in DIR
    python examples/vae.py --short              # a few epochs

The loss is one scalar, the mean over the batch. The script trains twice from the same seed, with
keras_pergrad watching and as plain Keras, and writes three questions' answers as figures:
is the gradient of the mean the mean of the gradients, what do the single gradients look like, and
does looking change the training?
"""

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse
import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops
from matplotlib.figure import Figure

import keras_pergrad as pg

LATENT_SIZE = 2
SEED = 7

# Okabe and Ito's palette: told apart under every common form of colour blindness.
COLOURS = BLUE, ORANGE = "#0072B2", "#D55E00"


# %% [markdown]
# ## Data


# %%
def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels, in [0, 1]."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).reshape(-1, 8, 8, 1).astype("float32"), labels


def load_mnist(folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's 60,000 training images of 28 x 28 pixels, in [0, 1]."""
    if folder is None:
        (images, labels), _ = keras.datasets.mnist.load_data()
    else:
        images = read_idx(folder / "train-images-idx3-ubyte.gz")
        labels = read_idx(folder / "train-labels-idx1-ubyte.gz")
    return (images / 255)[..., None].astype("float32"), labels


def read_idx(path: Path) -> np.ndarray:
    """An array of bytes in MNIST's idx format: two zeros, a type, the rank, the sizes, the data."""
    content = gzip.decompress(path.read_bytes())
    type_code, rank = content[2], content[3]
    if content[:2] != b"\0\0" or type_code != 0x08:
        raise ValueError(f"Not an idx file of unsigned bytes. Received: {path}")
    sizes = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(sizes)


# %% [markdown]
# ## The model
#
# The base class is the only line that differs from plain Keras. The loss is in `compute_loss`, so
# Keras' own `train_step` and everything around it stay in use.


# %%
class Sampling(layers.Layer):
    """Draws a latent vector from the posterior: `mean + exp(log_var / 2) * noise`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(SEED)

    def call(self, mean, log_var):
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_var) * noise


def make_encoder(size: int) -> keras.Model:
    image = keras.Input((size, size, 1), name="image")
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(32, activation="relu")(x)
    mean = layers.Dense(LATENT_SIZE, name="mean")(x)
    log_var = layers.Dense(LATENT_SIZE, name="log_var")(x)
    return keras.Model(image, [mean, log_var], name="encoder")


def make_decoder(size: int) -> keras.Model:
    latent = keras.Input((LATENT_SIZE,), name="latent")
    x = layers.Dense((size // 4) ** 2 * 32, activation="relu")(latent)
    x = layers.Reshape((size // 4, size // 4, 32))(x)
    x = layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(x)
    logits = layers.Conv2D(1, 3, padding="same", name="logits")(x)
    return keras.Model(latent, logits, name="decoder")


class VAE(pg.PerGradModel):
    """A variational autoencoder with Bernoulli pixels and a standard normal prior."""

    def __init__(self, size: int, **kwargs):
        super().__init__(**kwargs)
        self.encoder = make_encoder(size)
        self.sampling = Sampling()
        self.decoder = make_decoder(size)
        self.reconstruction_tracker = keras.metrics.Mean(name="reconstruction")
        self.kl_tracker = keras.metrics.Mean(name="kl")

    def call(self, images):
        mean, log_var = self.encoder(images)
        logits = self.decoder(self.sampling(mean, log_var))
        return {"logits": logits, "mean": mean, "log_var": log_var}

    def compute_loss(self, x, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean over the batch of each image's negative evidence lower bound, in nats."""
        pixels = ops.binary_crossentropy(x, y_pred["logits"], from_logits=True)
        reconstruction = ops.sum(pixels, axis=(1, 2, 3))
        mean, log_var = y_pred["mean"], y_pred["log_var"]
        kl = 0.5 * ops.sum(ops.square(mean) + ops.exp(log_var) - 1 - log_var, axis=1)
        self.reconstruction_tracker.update_state(reconstruction)
        self.kl_tracker.update_state(kl)
        return ops.mean(reconstruction + kl)

    def reconstruct(self, images) -> np.ndarray:
        mean, _ = self.encoder(images)
        return ops.convert_to_numpy(ops.sigmoid(self.decoder(mean)))


# %% [markdown]
# ## Training, with and without per-sample gradients


# %%
@dataclass(frozen=True)
class Norms:
    """Norms of the sample gradients of some images, and the norm of their mean."""

    samples: np.ndarray
    mean: float


class NormsDuringTraining(keras.callbacks.Callback):
    """Looks at the sample gradients of a few images at the end of the chosen epochs."""

    def __init__(self, images: np.ndarray, epochs: set[int]):
        super().__init__()
        self.images, self.epochs = images, epochs
        self.norms: dict[int, Norms] = {}

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 in self.epochs:
            gradients = pg.per_sample_gradients(self.model, self.images)
            samples = ops.convert_to_numpy(gradients.norms())
            mean = np.concatenate([np.ravel(weight) for weight in gradients.mean()])
            self.norms[epoch + 1] = Norms(samples, float(np.linalg.norm(mean)))


@dataclass(frozen=True)
class Run:
    """A trained model, its loss after each epoch, and what was seen of the gradients by epoch."""

    model: VAE
    losses: np.ndarray
    norms: dict[int, Norms]


def train_watched(images: np.ndarray, epochs: int, batch_size: int) -> Run:
    """Trains with the equivalence check on; reports before and after."""
    model = make_compiled(images, pg.PerSample(engine="auto", check="first"))
    batch = images[:batch_size]
    print("\nBefore training:")
    print(pg.check_equivalence(model, batch))
    watch = NormsDuringTraining(batch, {1, epochs})
    history = model.fit(images, epochs=epochs, batch_size=batch_size, callbacks=[watch])
    print("\nAfter training:")
    print(pg.check_equivalence(model, batch))
    return Run(model, np.array(history.history["loss"]), watch.norms)


def train_plain(images: np.ndarray, epochs: int, batch_size: int) -> Run:
    """The same training by plain Keras, from the same seed."""
    model = make_compiled(images, None)
    history = model.fit(images, epochs=epochs, batch_size=batch_size, verbose=0)
    return Run(model, np.array(history.history["loss"]), {})


def make_compiled(images: np.ndarray, per_sample: pg.PerSample | None) -> VAE:
    keras.utils.set_random_seed(SEED)
    model = VAE(images.shape[1])
    model.compile(keras.optimizers.Adam(2e-3), per_sample=per_sample)
    model(images[:1])  # makes the weights
    return model


# %% [markdown]
# ## Figures


# %%
def draw_reconstructions(model: VAE, images: np.ndarray) -> Figure:
    """Ten images above what the model makes of them."""
    shown = images[:10]
    figure = Figure(figsize=(9, 2.4), layout="constrained")
    axes = figure.subplots(2, len(shown))
    for row, pictures in zip(axes, (shown, model.reconstruct(shown)), strict=True):
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture[..., 0], cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
    axes[0, 0].set_ylabel("image")
    axes[1, 0].set_ylabel("reconstruction")
    figure.suptitle("Images and their reconstructions")
    return figure


def draw_latent_space(model: VAE, images: np.ndarray, labels: np.ndarray) -> Figure:
    """Every image at its posterior mean, drawn as its digit: legible without the colours too."""
    means = ops.convert_to_numpy(model.encoder.predict(images, verbose=0)[0])
    figure = Figure(figsize=(7, 6), layout="constrained")
    axis = figure.subplots()
    colours = ["#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7",
               "#E69F00", "#56B4E9", "#882255", "#999933", "#777777"]  # fmt: skip
    for digit, colour in enumerate(colours):
        points = means[labels == digit]
        axis.scatter(*points.T, s=34, color=colour, marker=f"${digit}$", linewidths=0.2)
    axis.set(
        title=f"Latent space: {len(means):,} images at their posterior means",
        xlabel="latent dimension 1",
        ylabel="latent dimension 2",
    )
    return figure


def draw_norms(norms: dict[int, Norms]) -> Figure:
    """How the norms of the sample gradients are distributed, early and late."""
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axis = figure.subplots()
    values = np.concatenate([seen.samples for seen in norms.values()])
    edges = np.geomspace(values.min() * 0.95, values.max() * 1.05, 30)
    for (epoch, seen), colour, hatch in zip(norms.items(), COLOURS, ("", "///"), strict=False):
        label = f"sample gradients after epoch {epoch}"
        axis.hist(seen.samples, edges, label=label, color=colour, alpha=0.55, hatch=hatch,
                  edgecolor=colour)  # fmt: skip
        axis.axvline(seen.mean, color=colour, linestyle="--", label=f"their mean, epoch {epoch}")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set(
        title="Norms of the sample gradients of one batch, and of their mean",
        xlabel="norm of a gradient",
        ylabel="number of images",
    )
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def draw_loss_curves(watched: Run, plain: Run) -> Figure:
    """Both loss curves, one upon the other."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axis = figure.subplots()
    epochs = np.arange(1, len(plain.losses) + 1)
    axis.plot(epochs, plain.losses, color=BLUE, linewidth=6, alpha=0.4, label="plain Keras")
    axis.plot(epochs, watched.losses, color=ORANGE, linestyle="--", label="with per_sample")
    axis.set(
        title="Looking at the sample gradients leaves training alone\n"
        f"largest difference of the loss: {largest_difference(watched, plain):.3g}",
        xlabel="epoch",
        ylabel="loss in nats per image",
    )
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()
    return figure


def largest_difference(watched: Run, plain: Run) -> float:
    return float(np.abs(watched.losses - plain.losses).max())


# %% [markdown]
# ## All of it


# %%
def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A VAE with its per-sample gradients checked.")
    parser.add_argument("--data", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--data-dir", type=Path, help="folder with MNIST's idx files")
    parser.add_argument("--epochs", type=int, help="default: 60 for digits, 3 for MNIST")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--short", action="store_true", help="5 epochs on 512 images")
    parser.add_argument("--out", type=Path, default=Path("vae_output"), help="folder for figures")
    return parser.parse_args([] if "ipykernel" in sys.modules else None)


def main() -> None:
    arguments = parse_arguments()
    if arguments.data == "mnist":
        images, labels = load_mnist(arguments.data_dir)
        epochs = arguments.epochs or 3
    else:
        images, labels = load_digits()
        epochs = arguments.epochs or 60
    if arguments.short:
        images, labels, epochs = images[:512], labels[:512], arguments.epochs or 5

    watched = train_watched(images, epochs, arguments.batch_size)
    plain = train_plain(images, epochs, arguments.batch_size)
    print(f"\nLoss of plain Keras: {plain.losses[-1]:.6f}, watched: {watched.losses[-1]:.6f}")
    print(f"Largest difference over {epochs} epochs: {largest_difference(watched, plain):.3g}")
    for epoch, seen in watched.norms.items():
        print(
            f"Norms after epoch {epoch}: sample gradients {seen.samples.min():.3g} to "
            f"{seen.samples.max():.3g}, median {np.median(seen.samples):.3g}; "
            f"their mean {seen.mean:.3g}"
        )

    figures = {
        "reconstructions": draw_reconstructions(watched.model, images),
        "latent_space": draw_latent_space(watched.model, images[:2000], labels[:2000]),
        "gradient_norms": draw_norms(watched.norms),
        "loss_curves": draw_loss_curves(watched, plain),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(arguments.out / f"{name}.png", dpi=150)
    print(f"Figures: {', '.join(f'{name}.png' for name in figures)} in {arguments.out}/")
    if largest_difference(watched, plain) > 1e-5 * np.abs(plain.losses).max():
        raise SystemExit("The two loss curves differ by more than rounding.")


# %%
if __name__ == "__main__":
    main()
