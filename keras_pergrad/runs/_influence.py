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


def influences(run: Run) -> tuple[list[str], list[str]]:
    """What a forward pass writes and another one would be changed by. Eagerly.

    Returns:
        The paths of variables, and layers' attributes, each as `layer.name`: those which, as the
        pass leaves them, change the predictions. Noise is held, so that the states of seeds are
        none of them. Where it cannot be, nothing is known: two passes differ whatever they start
        from.
    """
    old = _attributes(run.model)
    with attributes_kept(run.model):
        before, after = _forward(run, {})
        new = _attributes(run.model)
    values = {key: value for key, value in after.items() if _is_other(run.values.get(key), value)}
    held = [new[key] for key in new if key in old and not new[key].is_like(old[key])]
    if not (values or held) or _moves(run, before, {}):
        return [], []
    return _of_variables(run, before, values), [
        each.where for each in held if _moves(run, before, {}, each)
    ]


def _of_variables(run: Run, before: Any, written: State) -> list[str]:
    if not written or not _moves(run, before, written):
        return []
    names = {id(variable): variable.path for variable, _ in run.state}
    found = [names[key] for key in written if _moves(run, before, {key: written[key]})]
    return list(dict.fromkeys(found))  # a recurrent layer calls all of its states by one name


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
        if name not in _keras.FLAGS
    }


def _forward(run: Run, state: State) -> tuple[Any, State]:
    box, told = _parts.sandbox(run), _parts.replay(run)
    with box, box.forgetting(state), told.of(None):
        y_pred, _ = _parts.forward(run, run.batch, unroll=False)
        return y_pred, dict(box.state_mapping)


def _moves(run: Run, before: Any, state: State, held: _Held | None = None) -> bool:
    """Whether predictions are others from some other values of variables, and of an attribute."""
    with attributes_kept(run.model):
        if held is not None:
            held.put_back()
        return _are_two(before, _forward(run, state)[0])


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
