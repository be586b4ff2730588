"""Finished batches in a file, to go on from after an interruption."""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.errors import DataError
from keras_pergrad.runs import Batch
from keras_pergrad.scores._finished import Finished

SAVE_SECONDS = 10.0  # between two writings, at least
_SHARE = 20  # a writing is followed by as many times its own time of work, at least
_FORMAT = "keras_pergrad scores 1"


class ScoreFile:
    """Writes what is finished every so often: whole, or not at all.

    Args:
        path: of the file; None writes nothing.
        request: what the scores are of; a file with another is refused.
    """

    def __init__(self, path: str | os.PathLike | None, request: dict[str, Any]):
        self.path = None if path is None else Path(path)
        self._request = {"format": _FORMAT, **json.loads(json.dumps(request))}
        self._due = time.monotonic() + SAVE_SECONDS

    def load(self) -> Finished:
        """What is finished; nothing where there is no file.

        Raises:
            DataError: the file is another, or of another request.
        """
        if self.path is None:
            return Finished()
        _expect_a_folder(self.path)
        if not self.path.exists():
            return Finished()
        try:
            with np.load(self.path, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
            head = json.loads(str(arrays.pop("head")))
            ids = arrays.pop("ids")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                "The file holds no scores of `score_dataset`. Give another path. "
                f"Received: path={str(self.path)!r}."
            ) from error
        self._expect_the_same(head["request"])
        marks = head["batches"], head["digest"], head["first"]
        return Finished(*marks, [ids], {name: [each] for name, each in arrays.items()})

    def save(self, finished: Finished, *, now: bool) -> None:
        """Writes, if it is time, in the place of what was there."""
        if self.path is None or not (now or time.monotonic() >= self._due):
            return
        start = time.monotonic()
        head = {name: getattr(finished, name) for name in ("batches", "digest", "first")}
        arrays: dict[str, Any] = {"head": json.dumps({**head, "request": self._request})}
        arrays.update(ids=finished.all_ids, **finished.arrays)
        _replace(self.path, lambda file: np.savez(file, **arrays))
        spent = time.monotonic() - start
        self._due = time.monotonic() + max(SAVE_SECONDS, _SHARE * spent)

    def _expect_the_same(self, found: dict[str, Any]) -> None:
        differ = [name for name in self._request if found.get(name) != self._request[name]]
        if not differ:
            return
        because = (
            "the model has other weights"
            if differ == ["weights"]
            else f"they differ in {', '.join(differ)}"
        )
        name = differ[0]
        raise DataError(
            f"The file has scores of another model or request: {because}. Give another path, or "
            f"remove the file. Received: {name}={self._request[name]!r}, and in the file "
            f"{found.get(name)!r}."
        )


def _expect_a_folder(path: Path) -> None:
    """Before any work is done: what cannot be written at its end would be lost.

    Raises:
        DataError: the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writable = os.access(path.parent, os.W_OK)
    except OSError as error:
        raise DataError(f"The file cannot be written: {error}. Received: path={path}.") from error
    if not writable:
        raise DataError(f"The folder cannot be written. Received: path={str(path)!r}.")


def _replace(path: Path, write: Callable[[Any], None]) -> None:
    """Writes beside the file and then renames, so that a killed process leaves a whole file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def digest_of_model(model: keras.Model) -> str:
    """Of all its weights, statistics and seeds, and of which are trained."""
    found = hashlib.blake2b(digest_size=16)
    for variable in model.variables:
        found.update(f"{variable.path} {variable.trainable} {variable.dtype}".encode())
        found.update(variable.numpy().tobytes())
    return found.hexdigest()


def digest_of_batch(before: str, batch: Batch, ids: np.ndarray) -> str:
    """Of a batch's bits and of all batches before it."""
    found = hashlib.blake2b(before.encode(), digest_size=16)
    found.update(np.ascontiguousarray(ids, np.int64).tobytes())
    for leaf in batch.leaves:
        for each in tf.nest.flatten(leaf, expand_composites=True):
            found.update(tf.io.serialize_tensor(each).numpy())
    return found.hexdigest()


def digest_of_batches(batches: Iterable[tuple[Batch, np.ndarray]]) -> str:
    """Of all of them."""
    digest = ""
    for batch, ids in batches:
        digest = digest_of_batch(digest, batch, ids)
    return digest
