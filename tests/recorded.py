"""Records of trainings that nobody ran, for pictures of any length, depth and noise."""

import numpy as np

import keras_pergrad as pg
from keras_pergrad.diagnostics import EDGES


def records(
    count: int = 20,
    layers: tuple[str, ...] = ("net/first", "net/second"),
    *,
    signal: float = 0.5,
    level: str = "standard",
    every: int = 5,
) -> list[pg.Record]:
    """Records of steps with norms that fall; `signal` is the mean `G2`, of a `tr` of about 8."""
    rng = np.random.default_rng(count)
    return [_record(k, every * k, layers, signal, level, rng) for k in range(count)]


def _record(k, step, layers, signal, level, rng) -> pg.Record:
    norm = float(np.exp(-0.01 * k + 0.1 * rng.normal()))
    values = {
        "grad_norm_mean": 1.1 * norm,
        "grad_norm_median": norm,
        "grad_norm_p95": 2 * norm,
        "grad_norm_max": 3 * norm,
    }
    noise = {
        name: [float(8 + rng.normal()), float(signal + 0.05 * rng.normal())]
        for name in ("model", *layers)
    }
    norms = np.histogram([np.log10(norm)] * 16, EDGES["log_norm"])[0]
    counts = {"log_norm": [int(each) for each in norms]}
    if level != "norms":
        cosines = np.histogram(rng.uniform(-0.4, 0.9, 16), EDGES["grad_cosine"])[0]
        counts["grad_cosine"] = [int(each) for each in cosines]
    terms = {
        "NormQuantiles": [1.1 * norm, norm, 2 * norm],
        "LargestNorm": [3 * norm],
        "NoiseScale": noise["model"],
    }
    return pg.Record(
        step, k // 10, 16, 0.1, values, {name: dict(values) for name in layers}, terms, noise,
        rows=[row(k, step)], histograms=counts,
    )  # fmt: skip


def row(k: int, step: int = 0, **changes) -> pg.OutlierRow:
    """A row that stood out, by about as much as its id says."""
    named = {"id": k, "epoch": 0, "step": step, "norm": 10.0 + k, "z": 3 + k / 7, "loss": 2.5}
    return pg.OutlierRow(**{**named, "layer": "net/first", **changes})
