"""The variables that a forward pass writes and that the next one would depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import attributes_kept
from keras_pergrad.runs._leaves import leaves

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run

State = dict[int, tf.Tensor]


def influential_state(run: Run) -> list[str]:
    """The paths of those variables: each, as the pass leaves it, changes the predictions. Eagerly.

    Noise is held, so that the states of seeds are none of them.
    """
    before, after = _predicted(run, {})
    written = {key: value for key, value in after.items() if _is_other(run.values.get(key), value)}
    if not written or not _moves(run, before, written):
        return []
    names = {id(variable): variable.path for variable, _ in run.state}
    return [names[key] for key in written if _moves(run, before, {key: written[key]})]


def _predicted(run: Run, state: State) -> tuple[Any, State]:
    """The predictions from some other values of variables, and all values after it."""
    box, told = _parts.sandbox(run), _parts.replay(run)
    with attributes_kept(run.model), box, box.forgetting(state), told.of(None):
        y_pred, _ = _parts.forward(run, run.batch, unroll=False)
        return y_pred, dict(box.state_mapping)


def _moves(run: Run, before: Any, state: State) -> bool:
    after, _ = _predicted(run, state)
    pairs = zip(leaves(before), leaves(after), strict=True)
    return any(_is_other(a, b) for a, b in pairs)


def _is_other(old: Any, new: Any) -> bool:
    if not isinstance(new, tf.Tensor) or old is None:
        return False
    return bool(tf.reduce_any(tf.cast(old, new.dtype) != new))
