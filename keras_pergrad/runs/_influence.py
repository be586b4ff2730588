"""What a forward pass writes and the next one would depend on: variables, and attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.runs import _parts
from keras_pergrad.runs._attributes import attributes_kept
from keras_pergrad.runs._containers import containers_in, is_same, refill
from keras_pergrad.runs._leaves import leaves

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run

State = dict[int, tf.Tensor]


def influential_state(run: Run) -> list[str]:
    """The paths of those variables: each, as the pass leaves it, changes the predictions. Eagerly.

    Noise is held, so that the states of seeds are none of them. Where it cannot be, nothing is
    known: two passes differ whatever they start from.
    """
    before, after = _predicted(run, {})
    written = {key: value for key, value in after.items() if _is_other(run.values.get(key), value)}
    if not written or _moves(run, before, {}) or not _moves(run, before, written):
        return []
    names = {id(variable): variable.path for variable, _ in run.state}
    found = [names[key] for key in written if _moves(run, before, {key: written[key]})]
    return list(dict.fromkeys(found))  # a recurrent layer calls all of its states by one name


def influential_attributes(run: Run) -> list[str]:
    """The same of layers' attributes, each as `layer.name`; none is left as it was. Eagerly."""
    before, _ = _predicted(run, {})
    if _moves(run, before, {}):
        return []
    old = _attributes(run.model)
    with attributes_kept(run.model):
        _forward(run, {})
        new = _attributes(run.model)
    written = [key for key, held in new.items() if key in old and not held.is_like(old[key])]
    found = []
    for key in written:
        with attributes_kept(run.model):
            new[key].put_back()
            after, _ = _forward(run, {})
        if _are_two(before, after):
            found.append(new[key].where)
    return found


@dataclass(frozen=True)
class _Held:
    """What an attribute holds at some time: the value, and what is in its containers."""

    layer: keras.Layer
    name: str
    value: Any
    contents: list[tuple[Any, Any]]

    @property
    def where(self) -> str:
        return f"{self.layer.path or self.layer.name}.{self.name}"

    def is_like(self, other: _Held) -> bool:
        pairs = zip(self.contents, other.contents, strict=False)
        return self.value is other.value and all(is_same(a[1], b[1]) for a, b in pairs)

    def put_back(self) -> None:
        self.layer.__dict__[self.name] = self.value
        for container, contents in self.contents:
            refill(container, contents)


def _attributes(model: keras.Model) -> dict[tuple[int, str], _Held]:
    return {
        (id(layer), name): _Held(
            layer, name, value, [(each, each.copy()) for each in containers_in([value])]
        )
        for layer in _keras.layers_of(model)
        for name, value in list(layer.__dict__.items())
    }


def _predicted(run: Run, state: State) -> tuple[Any, State]:
    """The predictions from some other values of variables, and all values after it."""
    with attributes_kept(run.model):
        return _forward(run, state)


def _forward(run: Run, state: State) -> tuple[Any, State]:
    box, told = _parts.sandbox(run), _parts.replay(run)
    with box, box.forgetting(state), told.of(None):
        y_pred, _ = _parts.forward(run, run.batch, unroll=False)
        return y_pred, dict(box.state_mapping)


def _moves(run: Run, before: Any, state: State) -> bool:
    return _are_two(before, _predicted(run, state)[0])


def _are_two(before: Any, after: Any) -> bool:
    pairs = zip(leaves(before), leaves(after), strict=True)
    return any(_is_other(a, b) for a, b in pairs)


def _is_other(old: Any, new: Any) -> bool:
    if not isinstance(new, tf.Tensor) or old is None:
        return False
    old = tf.cast(old, new.dtype)
    different = old != new
    if new.dtype.is_floating:  # a NaN is like another
        different &= ~(tf.math.is_nan(old) & tf.math.is_nan(new))
    return bool(tf.reduce_any(different))
