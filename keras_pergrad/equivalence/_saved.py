"""A failed check as a file that reproduces it."""

from __future__ import annotations

import json
import pathlib
import pickle
import platform
import tempfile
import zipfile
from typing import Any

import keras
import tensorflow as tf

from keras_pergrad.engines import gist
from keras_pergrad.equivalence._once import Request
from keras_pergrad.errors import PerGradError

_SCRIPT = '''"""Makes the check again. Run it in the folder that the file was unpacked to."""

import pickle

import keras

import keras_pergrad as pg

# A class of your own has to be imported here, before the model is loaded.
model = keras.saving.load_model("model.keras")
with open("batch.pickle", "rb") as file:
    x, y, sample_weight = pickle.load(file)
print(pg.check_equivalence(model, x, y, sample_weight))
'''


def save_reproduction(request: Request, path: Any, report: dict[str, Any]) -> None:
    """Writes model, batch, report, versions and a script into one zip file.

    Raises:
        PerGradError: Keras cannot save the model.
    """
    batch = request.batch
    data = keras.tree.map_structure(_plain, (batch.x, batch.y, batch.sample_weight))
    saved = _model_bytes(request.model)  # before there is a file
    with zipfile.ZipFile(pathlib.Path(path), "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.keras", saved)
        file.writestr("batch.pickle", pickle.dumps(data))
        file.writestr("report.json", json.dumps(report | {"versions": _versions()}, indent=1))
        file.writestr("reproduce.py", _SCRIPT)


def _model_bytes(model: keras.Model) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        try:
            model.save(path)
        except (ValueError, TypeError, NotImplementedError) as error:
            raise PerGradError(
                "Keras cannot save this model, so that nothing reproduces the check. Give its "
                f"class a `get_config`. Received: model={model.name!r}: {gist(error)}"
            ) from error
        return path.read_bytes()


def _plain(leaf: Any) -> Any:
    return leaf.numpy() if isinstance(leaf, tf.Tensor) else leaf


def _versions() -> dict[str, str]:
    return {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
    }
