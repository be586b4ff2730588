"""A training loop of one's own that clips every sample's gradient: one pass of the batch for all.

The norms come from the forward and backward pass that a plain step makes, the clipped mean from
what was kept of it. No copy of the weights is made for any sample.
"""

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import keras_pergrad as pg

LIMIT, BATCH, EPOCHS = 2.0, 64, 5

# %% A plain Keras model: no base class to change in a loop of one's own.
images, labels = load_digits(return_X_y=True)
images, labels = (images / 16).astype("float32"), labels.astype("int32")
keras.utils.set_random_seed(0)
pixels = keras.Input((64,))
hidden = keras.layers.Dense(64, activation="relu")(pixels)
model = keras.Model(pixels, keras.layers.Dense(10)(hidden))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.SGD(0.5), loss)


# %%
@tf.function
def step(x, y):
    """One update with the mean of the clipped sample gradients; returns the norms before."""
    g = pg.per_sample_gradients(model, x, y, engine="factored")
    norms = g.norms()
    clipped = g.sum(tf.minimum(1.0, LIMIT / norms))
    model.optimizer.apply([each / BATCH for each in clipped], model.trainable_variables)
    return norms


# %%
for epoch in range(EPOCHS):
    order = np.random.default_rng(epoch).permutation(len(images))
    batches = [order[k : k + BATCH] for k in range(0, len(order) - BATCH + 1, BATCH)]
    norms = np.concatenate([step(images[rows], labels[rows]) for rows in batches])
    accuracy = np.mean(model.predict(images, verbose=0).argmax(axis=1) == labels)
    print(
        f"epoch {epoch + 1}: accuracy {accuracy:.3f}, median norm {np.median(norms):.2f}, "
        f"largest {norms.max():.1f}, clipped {np.mean(norms > LIMIT):.0%} of the samples"
    )

# %%
print(pg.per_sample_gradients(model, images[:BATCH], labels[:BATCH], engine="factored").summary())
