"""An existing compiled Keras model, attached: nothing in it is rewritten."""

# %%
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from sklearn.datasets import load_digits

import keras_pergrad as pg

# %% The model and its compile() are the user's own; nothing in them knows of keras_pergrad.
images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32")
keras.utils.set_random_seed(0)
pixels = keras.Input((64,))
hidden = keras.layers.Dense(64, activation="relu")(pixels)
model = keras.Model(pixels, keras.layers.Dense(10)(hidden))
cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", cross_entropy, metrics=["accuracy"])

# %% Attached, it checks the first batch it is trained on. At the end of the block it is detached.
with pg.attach(model) as attached:
    model.fit(images, labels, epochs=5, verbose=2)
print(attached.equivalence_report)

# %% Sample gradients need no attaching.
norms = pg.per_sample_gradients(model, images[:100], labels[:100]).norms().numpy()
largest = norms.argsort()[-3:]
print("Of the first hundred images, the largest gradients are those of", largest)
print("with the norms", norms[largest].round(2), "where the median is", sorted(norms)[50].round(2))
