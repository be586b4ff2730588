"""The samples themselves, found by the ids of their rows, where they are images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_pergrad.diagnostics import OutlierRow
from keras_pergrad.errors import DataError
from keras_pergrad.rows import locate

LEAST = 6  # pixels on a side: less is a table of numbers


def places_of(rows: Sequence[OutlierRow], x: Any) -> list[int]:
    """Where rows are in `x`, by their ids if these are places, by fingerprints if not; -1: nowhere.

    Raises:
        DataError: `x` is no arrays with one row a sample.
    """
    sizes = {np.shape(leaf)[:1] for leaf in keras.tree.flatten(x)}
    if len(sizes) != 1 or not all(sizes):
        raise DataError(
            "`x` are the inputs as given to `fit`: arrays with one row a sample. "
            f"Received: x={type(x).__name__}."
        )
    (count,) = sizes.pop()
    ids = [row.id for row in rows]
    if all(0 <= each < count for each in ids):
        return ids
    return [int(place) for place in locate(x, ids)]


def images_of(rows: Sequence[OutlierRow], x: Any) -> list[np.ndarray | None]:
    """The image of each row in [0, 1], `[H, W]` or `[H, W, 3]`; None where there is none.

    Of several inputs the first one with images counts.
    """
    if x is None:
        return [None] * len(rows)
    places = places_of(rows, x)
    leaf = next((leaf for leaf in keras.tree.flatten(x) if _is_image(np.shape(leaf)[1:])), None)
    if leaf is None:
        return [None] * len(rows)
    return [None if place < 0 else _scaled(np.asarray(leaf[place])) for place in places]


def _is_image(shape: tuple[int, ...]) -> bool:
    flat = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    return flat and min(shape[:2]) >= LEAST


def _scaled(image: np.ndarray) -> np.ndarray:
    """From its darkest to its brightest; one channel is grey, a fourth one is dropped."""
    image = np.nan_to_num(image.astype(float), posinf=0.0, neginf=0.0)
    image = image[..., :3] if image.ndim == 3 and image.shape[2] > 1 else image
    image = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros_like(image)
