"""`score_dataset`: one row for each sample of a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_pergrad.diagnostics import ALIGNMENTS, Scores, expect_names
from keras_pergrad.engines import DEFAULT_MEMORY_BUDGET, Engine, expect_memory_budget, get_engine
from keras_pergrad.errors import PerGradError
from keras_pergrad.scores._batches import batches_of
from keras_pergrad.scores._columns import COLUMNS, needs_of
from keras_pergrad.scores._file import ScoreFile, digest_of_batches, digest_of_model
from keras_pergrad.scores._mean_gradient import MeanGradient
from keras_pergrad.scores._scorer import Scorer
from keras_pergrad.scores._traced import How
from keras_pergrad.scores._walk import walk


def score_dataset(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    scores: Sequence[str] = ("norm", "loss"),
    batch_size: int | None = None,
    validation: Any = None,
    path: str | os.PathLike | None = None,
    verbose: int = 1,
    engine: str | Engine = "auto",
    training: bool = False,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Scores:
    """What the gradient of each sample says of it, at the model's weights: one row a sample.

    `g_i` is the gradient of the loss of sample `i` as if run alone, its sample weight included, so
    that most scores do not depend on the batch that it came in:

    - `"loss"`, `"norm"` `‖g_i‖`, `"squared_norm"`; `"layer"`, that with the largest part of it;
      `"layer_norms"`, a column `norm/…` for each layer.
    - `"alignment"` `⟨g_i, g_val⟩` with the mean gradient of `validation`: what a small step along
      `-g_i` takes off the validation loss, negative for a sample that does harm; and
      `"alignment_cosine"`.
    - `"projection"` `p_i = ⟨g_i, ḡ⟩`, `"contribution"` `p_i/(B‖ḡ‖²)` and `"cosine"` compare with
      the mean `ḡ` of the `B` samples of its batch, so that another `batch_size` has others.

    Guarantees: rows in the order of the data; the model's weights, seeds, statistics and metrics
    are left as they are. Noise of the model is the same in each batch. Interrupted with `path=` and
    called again, even after the process was killed, it goes on behind the last batch that was
    written and gives the same numbers, bit by bit, on the same machine.

    Args:
        model: built and compiled.
        x, y, sample_weight: arrays or dicts of them, as `fit` takes them; what `pg.with_ids` made
            of them; a `tf.data.Dataset` of batches, or a `keras.utils.PyDataset`.
        scores: which columns.
        batch_size: rows at a time, of arrays: 128 by default.
        validation: `(x, y)`, `(x, y, sample_weight)` or a dataset, for alignments.
        path: of a file for finished batches, written every ten seconds or more, and at the end.
        verbose: 0 for no progress bar.
        engine, training, memory_budget: as of `per_sample_gradients`; by default the model runs as
            it does in `predict`.

    Returns:
        `Scores`, with a column for each score.

    Raises:
        PerGradError: an unknown score, or alignments without `validation`.
        DataError: data without a fixed order or an end; a file that has something else: scores of
            other weights, rows, losses or settings.

    Example:
        >>> import keras, numpy as np, keras_pergrad as pg
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> y = np.array([0.0, 0.0, 50.0, 0.0])[:, None]
        >>> scores = pg.score_dataset(model, np.ones((4, 3)), y, verbose=0)
        >>> scores.top(1).ids
        array([2])
    """
    names = _expected(scores, validation, batch_size)
    expect_memory_budget(memory_budget)
    how = How(get_engine(engine), bool(training), memory_budget)
    batches = batches_of(x, y, sample_weight, batch_size)
    aligned = MeanGradient(validation, how) if ALIGNMENTS in needs_of(names) else None
    request = {
        "scores": names,
        "weights": digest_of_model(model) if path is not None else "",
        "validation": digest_of_batches(aligned.batches) if aligned and path is not None else "",
        "engine": get_engine(engine).name,
        "training": how.training,
        "floatx": keras.config.floatx(),
    }
    scorer = Scorer(model, names, None if aligned is None else aligned.of(model), how)
    return walk(batches, scorer, ScoreFile(path, request), shown=bool(verbose))


def _expected(scores: Sequence[str], validation: Any, batch_size: int | None) -> list[str]:
    names = [scores] if isinstance(scores, str) else list(dict.fromkeys(scores))
    expect_names(names, list(COLUMNS), "score")
    if not names:
        raise PerGradError(f"Which scores? There are: {', '.join(COLUMNS)}. Received: scores=().")
    if ALIGNMENTS in needs_of(names) and validation is None:
        raise PerGradError(
            "Alignments are with the mean gradient of validation data. Give `validation=(x, y)`. "
            f"Received: scores={names} and validation=None."
        )
    whole = isinstance(batch_size, int) and not isinstance(batch_size, bool)
    if batch_size is not None and not (whole and batch_size > 0):
        raise PerGradError(
            f"`batch_size` is a whole number of at least 1. Received: batch_size={batch_size!r}."
        )
    return names
