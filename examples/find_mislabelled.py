"""Mislabelled images, found by the gradients that they had while the model was trained.

    python examples/find_mislabelled.py                    # scikit-learn's digits, no network
    python examples/find_mislabelled.py --mnist DIR        # MNIST's idx files in DIR
    python examples/find_mislabelled.py --quick            # a few epochs

One label in twenty is changed to a wrong one. `GradientMonitor` watches the training and adds up,
row by row, what is told of each: a wrong label keeps pulling against all that the others teach, so
its gradient stays large. How well that tells wrong labels from right ones is the area under the ROC
curve: 1 for perfect, 0.5 for chance.
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
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

import keras_pergrad as pg

SEED, WRONG, HELD_BACK, SHOWN = 0, 0.05, 0.1, 32


# %% [markdown]
# ## Data, some of it wrong


# %%
@dataclass(frozen=True)
class Data:
    """Images in [0, 1], their true labels, and those that are given, some of them wrong."""

    images: np.ndarray
    true: np.ndarray
    given: np.ndarray

    @property
    def is_wrong(self) -> np.ndarray:
        return self.given != self.true

    def rows(self, places: np.ndarray) -> "Data":
        return Data(self.images[places], self.true[places], self.given[places])


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits: 1,797 images of 8 x 8 pixels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images / 16).reshape(-1, 8, 8).astype("float32"), labels


def load_mnist(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's 60,000 training images of 28 x 28 pixels, from its own files."""
    content = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)
    content = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())
    return (images / 255).astype("float32"), np.frombuffer(content, np.uint8, offset=8)


def with_wrong_labels(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Data:
    """Each label is changed to one of the nine others with a probability of 1 in 20."""
    labels = labels.astype(np.int64)
    wrong = rng.choice(len(labels), round(WRONG * len(labels)), replace=False)
    given = labels.copy()
    given[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return Data(images, labels, given)


# %% [markdown]
# ## Training, watched
#
# Ids travel with the rows through shuffling, so that what is measured of a row finds back to it. A
# tenth of the data, with labels that were looked at, gives the gradient that rows are aligned with.


# %%
def make_model(pixels: int) -> keras.Model:
    keras.utils.set_random_seed(SEED)
    layers = [keras.Input((pixels, pixels)), keras.layers.Flatten()]
    layers += [keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
    model = keras.Sequential(layers, name="digits")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
    return model


def train(data: Data, checked: Data, epochs: int) -> tuple[keras.Model, pg.Scores]:
    """Trains on what may be wrong; answers the model and what was added up for each row."""
    validation = checked.images, checked.true
    monitor = pg.callbacks.GradientMonitor(every=1, top_k=SHOWN, validation=validation)
    model = make_model(data.images.shape[1])
    rows = pg.with_ids(data.images, data.given)
    model.fit(**rows, epochs=epochs, batch_size=32, verbose=0, callbacks=[monitor])
    return model, monitor.samples()


# %% [markdown]
# ## Was it right?
#
# The alignment with a validation gradient does not tell much here. It is a question about the
# validation loss: that gradient soon points along the few checked rows that the model still gets
# wrong, and a wrong label pulls against it only where it concerns those.


# %%
def suspicion(samples: pg.Scores) -> dict[str, np.ndarray]:
    """Scores of each row, larger for what looks wrong."""
    return {
        "self_influence": samples["self_influence"],
        "norm": samples["norm"],
        "loss": samples["loss"],
        "alignment": -samples["alignment"],
    }


WHAT = {
    "self_influence": "Σ lr ‖g‖² over the training",
    "norm": "mean ‖g‖ over the training",
    "loss": "mean loss over the training",
    "alignment": "-Σ lr ⟨g, g_val⟩ over the training",
}


def report(samples: pg.Scores, is_wrong: np.ndarray) -> dict[str, float]:
    """Prints the area under the ROC curve of each score."""
    wrong = is_wrong[samples.ids]
    areas = {name: roc_auc_score(wrong, each) for name, each in suspicion(samples).items()}
    for name, area in areas.items():
        print(f"AUC {area:.4f}  {name:<15} {WHAT[name]}")
    worst = samples.top(int(wrong.sum()), by="self_influence")
    found = is_wrong[worst.ids].mean()
    print(
        f"{found:.0%} of the {len(worst)} rows with the largest self-influence are wrong; "
        f"{wrong.mean():.1%} of all rows are."
    )
    return areas


def draw_worst(data: Data, model: keras.Model, samples: pg.Scores) -> Figure:
    """The rows with the largest self-influence: given and predicted label, and the truth."""
    worst = samples.top(SHOWN, by="self_influence")
    predicted = model.predict(data.images[worst.ids], verbose=0).argmax(axis=1)
    figure = Figure(figsize=(9.6, 6.6), layout="constrained")
    axes = figure.subplots(4, 8).ravel()
    for axis, row, guess in zip(axes, worst.ids, predicted, strict=False):
        axis.imshow(data.images[row], cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
        wrong = data.is_wrong[row]
        colour = "#D55E00" if wrong else "#0072B2"
        axis.set_title(f"given {data.given[row]}, seen {guess}", fontsize=9, color=colour)
        axis.set_xlabel("changed" if wrong else "not changed", fontsize=8, color=colour)
        axis.spines[:].set(color=colour, linewidth=2)
    count = int(data.is_wrong[worst.ids].sum())
    figure.suptitle(
        f"The {len(worst)} images with the largest self-influence: {count} have a changed label\n"
        "given: the label trained on; seen: what the model predicts after training"
    )
    return figure


# %% [markdown]
# ## All of it


# %%
def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Mislabelled images, found by their gradients.")
    parser.add_argument("--mnist", type=Path, help="folder with MNIST's idx files; default: digits")
    parser.add_argument("--epochs", type=int, help="default: 10 for digits, 3 for MNIST")
    parser.add_argument("--quick", action="store_true", help="3 epochs")
    parser.add_argument("--out", type=Path, default=Path("mislabelled_output"))
    return parser.parse_args([] if "ipykernel" in sys.modules else None)


def main() -> dict[str, float]:
    arguments = parse_arguments()
    images, labels = load_mnist(arguments.mnist) if arguments.mnist else load_digits()
    epochs = arguments.epochs or (3 if arguments.quick or arguments.mnist else 10)
    rng = np.random.default_rng(SEED)
    order = rng.permutation(len(images))
    count = round(HELD_BACK * len(images))
    everything = with_wrong_labels(images, labels, rng)
    checked, data = everything.rows(order[:count]), everything.rows(order[count:])
    print(f"{len(data.images):,} rows, {data.is_wrong.sum()} of them with a wrong label.")
    model, samples = train(data, checked, epochs)
    areas = report(samples, data.is_wrong)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw_worst(data, model, samples).savefig(arguments.out / "worst.png", dpi=130)
    print(f"Figure: {arguments.out / 'worst.png'}")
    return areas


# %%
if __name__ == "__main__":
    main()
