"""How a verdict gets from inside a training step to the host.

Assertions vanish under XLA, logs are averaged over replicas and keep the last of several steps.
So the evidence is put into variables of no model, and judged after each call of the train function.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad.equivalence import (
    EquivalenceReport,
    Evidence,
    Request,
    Subject,
    explained,
    judge,
    tried_again,
)
from keras_pergrad.errors import EquivalenceError, EquivalenceWarning, PerGradError
from keras_pergrad.models._settings import EquivalenceCheck
from keras_pergrad.models._slot import Slot
from keras_pergrad.models._stash import Again, Kept

# What rounding makes under XLA, as which the batch is not run again: more is not acquitted.
SMALL = 1e-2
Refusal = Callable[[np.ndarray], PerGradError]


class Watch:
    """The evidence of the checks of one compiled model, one slot a replica.

    A slot keeps the worst step since the host looked last, by the largest error of the three tests
    over all variables, so that no failure is lost among several steps of one execution.
    """

    def __init__(self, check: EquivalenceCheck, replicas: int, variables: int):
        self.check = check
        self.subject: Subject | None = None
        self._agains: dict[int, Again] = {}
        self._first_failure: EquivalenceReport | None = None
        self._refusals: list[Refusal] = []
        self._slots = [Slot(variables) for _ in range(replicas)]

    def turn(self, replica: int) -> tf.Variable:
        """The number of training steps that this replica has made since `compile`."""
        return self._slots[replica].turn

    def due(self, replica: int) -> tf.Tensor:
        """Whether this step is to be checked; a scalar bool."""
        slot, every = self._slots[replica], self.check.every
        return ~slot.judged if every == "first" else tf.equal(slot.turn % max(every, 1), 0)

    @property
    def off(self) -> bool:
        """Whether nothing is ever checked."""
        return self.check.every == 0

    def keep(
        self, replica: int, evidence: Evidence, badness: tf.Tensor, again: Again | None = None
    ) -> None:
        """Keeps the evidence of this step if none since the last look is worse.

        And its batch, if the check failed and `again` is given, by which the host tries it again.
        """
        slot = self._slots[replica]
        if again is not None:
            self._agains[replica] = again
            again.stash.keep(again.batch, slot.is_worse(badness) & (badness > 1), slot.turn)
        slot.keep(evidence, badness)

    def refuse(
        self, replica: int, failed: tf.Tensor, refusal: Refusal, numbers: tf.Tensor | None = None
    ) -> None:
        """Notes that this step cannot be what was asked for, if `failed`.

        Args:
            replica: where.
            failed: a scalar bool.
            refusal: from `numbers` to the error that the host raises.
            numbers: what the error speaks of, `[n]`, int32.
        """
        self._refusals.append(refusal)
        self._slots[replica].refuse(failed, len(self._refusals), numbers)

    def step_done(self, replica: int) -> None:
        """Counts a training step."""
        self.turn(replica).assign_add(1)

    def look(self, model: keras.Model) -> EquivalenceReport | None:
        """The report of the worst step since the last look, of any replica. Runs on the host."""
        if self.subject is None:  # nothing was ever checked
            return None
        found = [slot.take() for slot in self._slots]
        kept = {replica: again.stash.take() for replica, again in self._agains.items()}
        reports = [
            (replica, self._placed(replica, judge(*each, self.subject)))
            for replica, each in enumerate(found)
            if each is not None
        ]
        if not reports:
            return None
        replica, worst = min(reports, key=lambda placed: placed[1].equivalent)
        return self._looked_into(worst, model, self._agains.get(replica), kept.get(replica))

    def _looked_into(
        self, report: EquivalenceReport, model: keras.Model, again: Again | None, kept: Kept | None
    ) -> EquivalenceReport:
        """A report as float64 decides it, with its causes, by what was kept of its batch."""
        if again is None or kept is None:
            return self._explained(_pointing_on(report), model, None)
        request = again.request(model, kept, self.check.rtol)
        if kept.is_whole and not (again.compiled and report.mean.error > SMALL):
            report = self._tried_again(report, request)
        return self._explained(_pointing_on(report), model, request)

    def _tried_again(self, report: EquivalenceReport, request: Request) -> EquivalenceReport:
        """A report that failed, or as float64 decides it where rounding may have made it fail.

        Once float64 has said that there is something wrong, it is not asked any more; nor where a
        tolerance was asked for, which is not second-guessed.
        """
        asked = self._first_failure is not None or self.check.rtol is not None
        return report if report.equivalent or asked else tried_again(report, request)

    def _explained(
        self, report: EquivalenceReport, model: keras.Model, request: Request | None
    ) -> EquivalenceReport:
        """A report that failed, with the causes that were found when the first one did."""
        if report.equivalent:
            return report
        first = self._first_failure
        if first is None:
            self._first_failure = first = explained(report, model, request)
            return first
        remark = f"The causes were looked for at training step {first.step}."
        return dataclasses.replace(
            report,
            causes=first.causes,
            notes=first.notes,
            remainder=first.remainder,
            explained_on=first.explained_on,
            remarks=[*report.remarks, remark],
        )

    def _placed(self, replica: int, report: EquivalenceReport) -> EquivalenceReport:
        """A report that says which replica's samples it counts, if there are several."""
        if len(self._slots) == 1:
            return report
        remark = f"Seen by replica {replica}: its samples alone, counted from 0."
        return dataclasses.replace(report, remarks=[*report.remarks, remark])

    def act(self, report: EquivalenceReport | None) -> None:
        """Raises or warns of a failed check, as asked; and of a step that was refused, always.

        Raises:
            EquivalenceError: the check failed and `on_failure="raise"`.
            PerGradError: the aggregator's gradient does not exist.
        """
        refused = [slot.take_refusal() for slot in self._slots]
        if report is not None and not report.equivalent:
            self._tell(report)
        for number, numbers in refused:
            if number:
                raise self._refusals[number - 1](numbers)

    def _tell(self, report: EquivalenceReport) -> None:
        if self.check.on_failure == "raise":
            raise EquivalenceError(report)
        if self.check.on_failure == "warn":
            warnings.warn(str(report), EquivalenceWarning, stacklevel=6)


def _pointing_on(report: EquivalenceReport) -> EquivalenceReport:
    """A report that failed, with the way to what a training step does not compute."""
    if report.equivalent or report.non_finite:
        return report
    text = "`check_equivalence` on such a batch says whether contributions add up; `fit` does not."
    report = dataclasses.replace(report, contributions=text)
    if not report.is_near or report.tie_breaker:
        return report
    text = (
        "not here: `fit` asks float64 once, of a batch that was kept whole, and where no tolerance "
        "was asked for; under XLA where the error is small. `check_equivalence` on such a batch "
        "does."
    )
    return dataclasses.replace(report, tie_breaker=text)
