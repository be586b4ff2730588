"""The search for causes: in which order, and what is said where one hides another.

A cause is looked for by behaviour, not by the names of layers. The order matters where one cause
hides another: each is looked for with those before it undone.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator

from keras_pergrad.engines import gist
from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.equivalence.causes._batch_term import batch_term
from keras_pergrad.equivalence.causes._broadcast import broadcast, broadcast_in_model
from keras_pergrad.equivalence.causes._loss_interaction import loss_interaction
from keras_pergrad.equivalence.causes._loss_normalization import loss_normalization
from keras_pergrad.equivalence.causes._loss_scale import loss_scale, undivided
from keras_pergrad.equivalence.causes._non_finite import is_finite, non_finite
from keras_pergrad.equivalence.causes._only_traced import only_traced
from keras_pergrad.equivalence.causes._overflow import overflow
from keras_pergrad.equivalence.causes._own_train_step import own_train_step
from keras_pergrad.equivalence.causes._precision import precision
from keras_pergrad.equivalence.causes._randomness import randomness, replayed_noise
from keras_pergrad.equivalence.causes._sample_interaction import sample_interaction
from keras_pergrad.equivalence.causes._sample_place import sample_place
from keras_pergrad.equivalence.causes._state import state, written_state
from keras_pergrad.equivalence.causes._summed_add_loss import summed_add_loss
from keras_pergrad.equivalence.causes._unconnected import unconnected
from keras_pergrad.equivalence.causes._uneven_parts import uneven_parts
from keras_pergrad.equivalence.causes._unexplained import unexplained
from keras_pergrad.equivalence.causes.instruments import Case

Find = Callable[[Case], Iterator[Cause]]

# What makes most of what is looked for after it meaningless, and what can be told all the same:
# where nothing is finite, nothing; of a step that cannot be repeated, the layers that can; where no
# sample can be run alone, what is seen in the batch.
_FIRST: tuple[tuple[Find, ...], ...] = ((overflow,), (non_finite,), (randomness, state))
_IN_LAYERS: tuple[Find, ...] = (sample_interaction,)
_IN_BATCH: tuple[Find, ...] = (sample_interaction, loss_normalization, loss_interaction)
_CAUSES: tuple[Find, ...] = (
    broadcast_in_model,
    sample_interaction,
    sample_place,
    summed_add_loss,
    broadcast,
    loss_normalization,
    loss_interaction,
    loss_scale,
    precision,
    uneven_parts,
)
_NOTES: tuple[Find, ...] = (
    own_train_step,
    undivided,
    batch_term,
    unconnected,
    replayed_noise,
    written_state,
)


def with_causes(report: EquivalenceReport, case: Case) -> EquivalenceReport:
    """The report of a check that failed, with why."""
    causes, remarks, looked = _first_found(case)
    first = bool(causes)
    if not first:
        causes, more, others = _look_for(_CAUSES, case)
        causes += unexplained(case, causes, _not_found(looked + others, causes))
        remarks += more + _seen_in_trace(case)
    notes, more, _ = _look_for(_NOTES, case)
    told = case.alone and case.difference.exists and not first
    return dataclasses.replace(
        report,
        causes=causes,
        notes=notes,
        remarks=[*report.remarks, *remarks, *more],
        remainder=case.difference.remainder if told else None,
        explained_on=case.size,
    )


def notes_of(case: Case) -> tuple[list[Cause], list[str]]:
    """What is no error and good to know; and remarks on what could not be looked for."""
    notes, remarks, _ = _look_for(_NOTES, case)
    return notes, remarks + _seen_in_trace(case)


def _seen_in_trace(case: Case) -> list[str]:
    try:
        return only_traced(case)
    except Exception as error:  # any model, loss or layer may be behind it
        return [_failed("where the trace sees samples meet", error)]


def _not_found(looked: list[str], causes: list[Cause]) -> list[str]:
    """The kinds that were looked for and not found, each once."""
    found = {cause.kind for cause in causes}
    return [kind for kind in dict.fromkeys(looked) if kind not in found]


def _first_found(case: Case) -> tuple[list[Cause], list[str], list[str]]:
    """The first of those beside which not all can be looked for, and what can be."""
    remarks: list[str] = []
    looked: list[str] = []
    for group in _FIRST:
        causes, more, others = _look_for(group, case)
        remarks, looked = remarks + more, looked + others
        if causes:
            told = _told_beside(group, case)
            beside, more, _ = _look_for(told, case)
            remarks += [*more, _hidden_by(causes, told)]
            causes += [dataclasses.replace(each, explains=None) for each in beside]
            return causes, remarks, looked
    return [], remarks, looked


def _told_beside(group: tuple[Find, ...], case: Case) -> tuple[Find, ...]:
    """What can be told beside a cause of the group: nothing of predictions that are not finite."""
    if group == (non_finite,) or not is_finite(case.run.y_pred):
        return ()
    return _IN_LAYERS if case.unsteady or not case.loss_repeats else _IN_BATCH


def _hidden_by(causes: list[Cause], told: tuple[Find, ...] = ()) -> str:
    """What is not known beside some causes."""
    others = " or ".join(repr(find.__name__) for find in told)
    but = f" but {others}" if told else ""
    return f"Beside {causes[0].kind!r} no other cause{but} can be told: mend it first."


def _look_for(group: tuple[Find, ...], case: Case) -> tuple[list[Cause], list[str], list[str]]:
    """The causes found, remarks on what could not be looked for, and what was not found."""
    causes: list[Cause] = []
    remarks, looked = [], []
    for find in group:
        found, remark = _found(find, case)
        causes += found
        remarks += remark
        looked += [] if found else [_kind_of(find)]
    return causes, remarks, looked


def _found(find: Find, case: Case) -> tuple[list[Cause], list[str]]:
    """What is found, or a remark that looking for it failed: a report must not fail for that."""
    try:
        return list(find(case)), []
    except Exception as error:  # any model, loss or layer may be behind it
        return [], [_failed(repr(_kind_of(find)), error)]


def _failed(what: str, error: Exception) -> str:
    return f"Looking for {what} failed: {type(error).__name__}: {gist(error)}"


def _kind_of(find: Find) -> str:
    """Of the causes that it finds: its file's."""
    return vars(sys.modules[find.__module__])["KIND"]
