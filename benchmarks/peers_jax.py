"""JAX's `vmap(grad)` on the benchmark's models: run by `peers.py`, in an environment of its own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, nn
from paired import compared, paired

CLASSES = 10
CHECKED = 4  # samples whose norms are compared with those of samples run alone
Weights = dict[str, Any]


def dense(key: jax.Array, inputs: int, outputs: int) -> Weights:
    """A kernel and a bias."""
    kernel = jax.random.normal(key, (inputs, outputs)) / inputs**0.5
    return {"w": kernel, "b": jnp.zeros(outputs)}


def met(layer: Weights, x: jax.Array) -> jax.Array:
    """What a dense layer gives."""
    return x @ layer["w"] + layer["b"]


def convolution(key: jax.Array, inputs: int, outputs: int) -> Weights:
    """A 3 x 3 kernel and a bias."""
    kernel = jax.random.normal(key, (3, 3, inputs, outputs)) / (9 * inputs) ** 0.5
    return {"w": kernel, "b": jnp.zeros(outputs)}


def convolved(layer: Weights, x: jax.Array, padding: str = "VALID") -> jax.Array:
    """What a convolution gives."""
    axes = ("NHWC", "HWIO", "NHWC")
    return (
        lax.conv_general_dilated(x, layer["w"], (1, 1), padding, dimension_numbers=axes)
        + layer["b"]
    )


def pooled(x: jax.Array) -> jax.Array:
    """The maximum of 2 x 2."""
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")


def normalized(layer: Weights, x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Mean 0 and variance 1 over `axes`, scaled and shifted."""
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-3) * layer["scale"] + layer["shift"]


def norm(width: int) -> Weights:
    """What a normalization learns."""
    return {"scale": jnp.ones(width), "shift": jnp.zeros(width)}


# --- the models: weights, and what they give ---


def mlp(keys: list) -> tuple[Weights, Callable]:
    """784-512-512-10."""
    sizes = (784, 512, 512, CLASSES)
    weights = {f"d{k}": dense(keys[k], *sizes[k : k + 2]) for k in range(3)}

    def run(w, x):
        return met(w["d2"], nn.relu(met(w["d1"], nn.relu(met(w["d0"], x)))))

    return weights, run


def cnn(keys: list) -> tuple[Weights, Callable]:
    """Two convolutions with pooling, and a dense layer."""
    weights = {"c0": convolution(keys[0], 1, 16), "c1": convolution(keys[1], 16, 32)}
    weights["d"] = dense(keys[2], 800, CLASSES)

    def run(w, x):
        hidden = pooled(nn.relu(convolved(w["c1"], pooled(nn.relu(convolved(w["c0"], x))))))
        return met(w["d"], hidden.reshape(len(x), -1))

    return weights, run


def lstm(keys: list) -> tuple[Weights, Callable]:
    """64 units over 28 steps."""
    weights = {"x": dense(keys[0], 28, 256), "h": dense(keys[1], 64, 256)}
    weights["d"] = dense(keys[2], 64, CLASSES)

    def run(w, x):
        def turn(state, now):
            hidden, cell = state
            i, f, g, o = jnp.split(met(w["x"], now) + met(w["h"], hidden), 4, axis=-1)
            cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
            return (nn.sigmoid(o) * jnp.tanh(cell), cell), None

        start = jnp.zeros((len(x), 64))
        (hidden, _), _ = lax.scan(turn, (start, start), x.transpose(1, 0, 2))
        return met(w["d"], hidden)

    return weights, run


def transformer(keys: list) -> tuple[Weights, Callable]:
    """Two blocks of width 128 on 64 positions."""
    weights: Weights = {"table": jax.random.normal(keys[0], (1000, 128))}
    for k in range(2):
        own = jax.random.split(keys[k + 1], 6)
        block = {name: dense(key, 128, 128) for name, key in zip("qkvo", own, strict=False)}
        block |= {"up": dense(own[4], 128, 256), "down": dense(own[5], 256, 128)}
        weights[f"b{k}"] = block | {"n0": norm(128), "n1": norm(128)}
    weights["d"] = dense(keys[3], 128, CLASSES)

    def attention(w, x):
        q, k, v = (met(w[n], x).reshape(*x.shape[:2], 4, 32).transpose(0, 2, 1, 3) for n in "qkv")
        scores = nn.softmax(q @ k.transpose(0, 1, 3, 2) / 32**0.5)
        return met(w["o"], (scores @ v).transpose(0, 2, 1, 3).reshape(x.shape))

    def run(w, words):
        hidden = w["table"][words]
        for name in ("b0", "b1"):
            block = w[name]
            hidden = hidden + attention(block, normalized(block["n0"], hidden, (-1,)))
            inner = met(block["up"], normalized(block["n1"], hidden, (-1,)))
            hidden = hidden + met(block["down"], nn.gelu(inner, approximate=False))
        return met(w["d"], hidden.mean(axis=1))

    return weights, run


def vae(keys: list) -> tuple[Weights, Callable]:
    """Dense, 784-256-16-256-784; the noise is given with the data."""
    sizes = ((784, 256), (256, 32), (16, 256), (256, 784))
    weights = {f"d{k}": dense(keys[k], *size) for k, size in enumerate(sizes)}

    def run(w, x):
        images, noise = x[:, :784], x[:, 784:]
        mean, log_var = jnp.split(met(w["d1"], nn.relu(met(w["d0"], images))), 2, axis=-1)
        latent = mean + jnp.exp(0.5 * log_var) * noise
        return jnp.concatenate([met(w["d3"], nn.relu(met(w["d2"], latent))), mean, log_var], -1)

    return weights, run


def resnet(keys: list) -> tuple[Weights, Callable]:
    """Three residual blocks of 16 filters with GroupNormalization, on 16 x 16 images."""
    weights: Weights = {"start": convolution(keys[0], 3, 16), "d": dense(keys[1], 16, CLASSES)}
    for k in range(3):
        weights |= {f"c{k}": convolution(keys[k + 2], 16, 16), f"n{k}": norm(16)}

    def groups(layer, x):
        split = x.reshape(*x.shape[:3], 4, 4)
        scale = {name: value.reshape(4, 4) for name, value in layer.items()}
        return normalized(scale, split, (1, 2, 4)).reshape(x.shape)

    def run(w, x):
        hidden = convolved(w["start"], x, "SAME")
        for k in range(3):
            inner = nn.relu(groups(w[f"n{k}"], hidden))
            hidden = hidden + convolved(w[f"c{k}"], inner, "SAME")
        return met(w["d"], hidden.mean(axis=(1, 2)))

    return weights, run


SHAPES = {"MLP": (784,), "CNN": (28, 28, 1), "LSTM": (28, 28), "VAE": (800,), "ResNet": (16, 16, 3)}
MODELS = {
    "MLP": mlp,
    "CNN": cnn,
    "LSTM": lstm,
    "Transformer": transformer,
    "VAE": vae,
    "ResNet": resnet,
}


def batch_for(model: str, size: int) -> tuple[jax.Array, jax.Array]:
    """Random inputs, and targets."""
    rng = np.random.default_rng(0)
    labels = jnp.asarray(rng.integers(0, CLASSES, size))
    if model == "Transformer":
        return jnp.asarray(rng.integers(0, 1000, (size, 64))), labels
    x = jnp.asarray(rng.normal(size=(size, *SHAPES[model])).astype("float32"))
    return x, x[:, :784] if model == "VAE" else labels


def losses(model: str, outputs: jax.Array, y: jax.Array) -> jax.Array:
    """One a sample."""
    if model != "VAE":
        return -jnp.take_along_axis(nn.log_softmax(outputs), y[:, None], axis=1)[:, 0]
    pixels, mean, log_var = outputs[:, :784], outputs[:, 784:800], outputs[:, 800:]
    divergence = 0.5 * (mean**2 + jnp.exp(log_var) - 1 - log_var).sum(axis=-1)
    return ((pixels - y) ** 2).sum(axis=-1) + divergence


def adam(weights: Weights, moments: Any, gradient: Weights, turn: jax.Array) -> tuple:
    """Kingma and Ba 2015 (1412.6980)."""
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], gradient)
    rate = 1e-3 * jnp.sqrt(1 - 0.999**turn) / (1 - 0.9**turn)
    moved = jax.tree.map(
        lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7), weights, first, second
    )
    return moved, (first, second)


def steps(name: str, size: int) -> dict[str, Callable]:
    """The plain step and those with norms; each is given and gives the state of training."""
    _, run = MODELS[name](list(jax.random.split(jax.random.key(0), 8)))

    def mean_loss(weights, x, y):
        return losses(name, run(weights, x), y).mean()

    def plain(state, x, y):
        weights, moments, turn = state
        gradient = jax.grad(mean_loss)(weights, x, y)
        return (*adam(weights, moments, gradient, turn), turn + 1), turn

    def rows(weights, x, y):
        each = jax.vmap(jax.grad(lambda w, a, b: mean_loss(w, a[None], b[None])), (None, 0, 0))
        return each(weights, x, y)

    def by_samples(clip):
        def step(state, x, y):
            weights, moments, turn = state
            found = rows(weights, x, y)
            squares = [(leaf.reshape(size, -1) ** 2).sum(axis=1) for leaf in jax.tree.leaves(found)]
            norms = jnp.sqrt(sum(squares))
            factors = jnp.minimum(1.0, 1.0 / norms) / size if clip else jnp.ones(size) / size
            gradient = jax.tree.map(lambda leaf: jnp.tensordot(factors, leaf, 1), found)
            return (*adam(weights, moments, gradient, turn), turn + 1), norms

        return step

    return {"plain": plain, "norms": by_samples(False), "clipped mean": by_samples(True)}


def measured(name: str, size: int, rounds: int) -> list[dict]:
    """A record for each step, against the plain one."""
    x, y = batch_for(name, size)
    weights, run = MODELS[name](list(jax.random.split(jax.random.key(0), 8)))
    zeros = jax.tree.map(jnp.zeros_like, weights)
    start = (weights, (zeros, zeros), jnp.ones(()))

    def alone(k: int) -> float:
        one = jax.grad(lambda w: losses(name, run(w, x[k : k + 1]), y[k : k + 1]).sum())(weights)
        return float(jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(one))))

    expected, records = np.array([alone(k) for k in range(CHECKED)]), []
    compiled = {what: jax.jit(step) for what, step in steps(name, size).items()}
    runs = {what: lambda f=f: jax.block_until_ready(f(start, x, y)) for what, f in compiled.items()}
    times = paired(runs, rounds)
    for what, seconds in times.items():
        if what != "plain":
            found = np.asarray(compiled[what](start, x, y)[1])[:CHECKED]
            error = float(np.max(np.abs(found - expected) / expected))
            records.append({"step": what, "error": error, **compared(seconds, times["plain"])})
    return records


def main() -> None:
    """One line a record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("batch", type=int)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for record in measured(options.model, options.batch, options.rounds):
        print(json.dumps(record))


if __name__ == "__main__":
    main()
