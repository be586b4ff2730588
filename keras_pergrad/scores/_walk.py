"""Through the data, batch by batch, behind what is finished already."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from keras_pergrad.diagnostics import Scores
from keras_pergrad.errors import DataError
from keras_pergrad.runs import Batch
from keras_pergrad.scores._batches import Batches
from keras_pergrad.scores._file import ScoreFile, digest_of_batch
from keras_pergrad.scores._finished import Finished
from keras_pergrad.scores._progress import progress
from keras_pergrad.scores._scorer import Scorer

_RTOL = 1e-3  # another machine may round otherwise; another loss or model is further off


def walk(batches: Batches, scorer: Scorer, file: ScoreFile, *, shown: bool) -> Scores:
    """Scores all batches.

    Raises:
        DataError: the finished ones are of other rows, another model or another loss.
    """
    finished, rest = file.load(), iter(batches)
    with progress(batches.rows, shown=shown) as advance:
        _pass_over(finished, rest, scorer, advance)
        before = finished.batches
        try:
            for batch, ids in rest:
                digest = digest_of_batch(finished.digest, batch, ids) if file.path else ""
                finished.add(digest, ids, scorer.columns(batch))
                file.save(finished, now=False)
                advance(len(ids))
        finally:
            if finished.batches > before:
                file.save(finished, now=True)
    return scorer.table(finished.all_ids, finished.arrays)


def _pass_over(
    finished: Finished,
    rest: Iterator[tuple[Batch, np.ndarray]],
    scorer: Scorer,
    advance: Callable[[int], None],
) -> None:
    """Reads the finished batches once more, and makes sure that they are the same."""
    digest = ""
    for k in range(finished.batches):
        batch, ids = next(rest, (None, np.zeros(0)))
        if batch is None:
            break
        digest = digest_of_batch(digest, batch, ids)
        if k == 0 and digest == finished.first:
            _expect_the_same_scores(scorer.columns(batch), finished.arrays)
        advance(len(ids))
    if digest != finished.digest:
        raise DataError(
            "The file has scores of other rows, or of batches of another size. Give another path, "
            f"or remove the file. Received: rows that differ from those of its {finished.batches} "
            "finished batches."
        )


def _expect_the_same_scores(found: dict[str, np.ndarray], finished: dict[str, np.ndarray]) -> None:
    """The first batch once more: weights and settings do not tell a loss or what layers do."""
    for name, values in found.items():
        then = finished[name][: len(values)]
        apart = np.abs(values - then)[np.isfinite(values) & np.isfinite(then)]
        allowed = _RTOL * np.abs(then[np.isfinite(then)]).max(initial=0.0)
        if name != "layer" and (
            (np.isfinite(values) != np.isfinite(then)).any() or (apart > allowed).any()
        ):
            raise DataError(
                "The model has the weights that the file's scores are of, but scores the first "
                "rows otherwise: it has another loss or other layers, or draws noise that cannot "
                "be replayed. Give another path, or remove the file. "
                f"Received: {name}={values[:3]}, and in the file {then[:3]}."
            )
