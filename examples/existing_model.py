"""An existing compiled Keras model, attached: nothing in it is rewritten."""

import keras
from sklearn.datasets import load_digits

import keras_pergrad as pg

# The model and its compile() are the user's own; nothing in them knows of keras_pergrad.
images, labels = load_digits(return_X_y=True)
pixels = keras.Input((64,))
hidden = keras.layers.Dense(64, activation="relu")(pixels)
model = keras.Model(pixels, keras.layers.Dense(10, activation="softmax")(hidden))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

# Attached, it checks the first batch it is trained on. At the end of the block it is detached.
with pg.attach(model) as attached:
    model.fit(images / 16, labels, epochs=5, verbose=2)
print(attached.equivalence_report)
print("Norms:", pg.per_sample_gradients(model, images[:5] / 16, labels[:5]).norms().numpy())
