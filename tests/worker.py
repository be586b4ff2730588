"""One of two workers: `TF_CONFIG=… python -m tests.worker`; ends with 1 if anything differs."""

import json
import os

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_pergrad as pg

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow's
BATCH, STEPS = 4, 2  # rows of one worker
WORKER = json.loads(os.environ["TF_CONFIG"])["task"]["index"]


def data(step: int) -> tuple[tf.Tensor, tf.Tensor]:
    """This worker's rows."""
    rng = np.random.default_rng(10 * step + WORKER)
    return tf.constant(rng.normal(size=(BATCH, 3))), tf.constant(rng.normal(size=(BATCH, 2)))


def make(per_sample) -> keras.Model:
    """A small stack with noise; plain Keras for None."""
    keras.utils.set_random_seed(0)
    chain = [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dropout(0.3), layers.Dense(2)]
    if per_sample is None:
        model = keras.Sequential(chain)
        model.compile(keras.optimizers.SGD(0.1), "mse")
    else:
        model = pg.PerGradSequential(chain)
        model.compile(keras.optimizers.SGD(0.1), "mse", per_sample=per_sample)
    model.optimizer.build(model.trainable_variables)
    return model


def trained(per_sample) -> np.ndarray:
    """All weights after some steps of `train_step`, run by the strategy."""
    with strategy.scope():
        model = make(per_sample)
    begin = np.concatenate([np.ravel(weight) for weight in model.get_weights()])

    @tf.function
    def step(x, y):
        strategy.run(model.train_step, args=((x, y),))

    for k in range(STEPS):
        step(*data(k))
    weights = np.concatenate([np.ravel(weight) for weight in model.get_weights()])
    assert np.abs(weights - begin).max() > 1e-3
    return weights


def expect_the_norms_of_the_loop() -> None:
    """A replica's loss is Keras' own divided by the number of replicas, and so are its norms."""
    with strategy.scope():
        model = make(None)
    model.layers[1].rate = 0.0  # the loop below would draw other noise
    x, y = data(0)

    def norms(x, y):
        return pg.per_sample_gradients(model, x, y, engine="factored").norms()

    @tf.function
    def on_each(x, y):
        return strategy.run(norms, args=(x, y))

    found = strategy.num_replicas_in_sync * np.asarray(on_each(x, y))
    np.testing.assert_allclose(found, _by_the_loop(model, x, y), rtol=1e-10)


def _by_the_loop(model: keras.Model, x, y) -> np.ndarray:
    """The norms of the same model outside of the strategy."""
    alone = make(None)
    alone.layers[1].rate = 0.0
    alone.set_weights(model.get_weights())
    return np.asarray(pg.per_sample_gradients(alone, x, y, engine="loop").norms())


def main() -> None:
    """Plain, checked and averaged training agree; the weights are printed, to be compared."""
    keras.config.set_floatx("float64")
    plain = trained(None)
    checked = trained(pg.PerSample("factored", check="always"))
    averaged = trained(pg.PerSample("factored", check="off", aggregator="mean"))
    np.testing.assert_array_equal(plain, checked)
    np.testing.assert_allclose(plain, averaged, rtol=1e-10, atol=1e-12)  # another order of sums
    expect_the_norms_of_the_loop()
    print("weights", *plain.tolist())


if __name__ == "__main__":
    main()
