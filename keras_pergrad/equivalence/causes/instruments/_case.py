"""What a cause is looked for in: one failed check, made again on a few samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import keras
import numpy as np
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import Alone, PrimeTrace, in_turn, why_not_alone
from keras_pergrad.equivalence._chance import halvings, pick
from keras_pergrad.equivalence._once import Request, as_in_training
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.equivalence._tolerance import Tolerance
from keras_pergrad.equivalence.causes.instruments._choice import counts, sizes_in
from keras_pergrad.equivalence.causes.instruments._difference import Difference
from keras_pergrad.equivalence.causes.instruments._gradient import (
    Gradient,
    mean_of,
    minus,
    norm,
    weighted_mean_of,
)
from keras_pergrad.equivalence.causes.instruments._mixing import Mixing, find_mixing
from keras_pergrad.equivalence.causes.instruments._outputs import Output, find_outputs
from keras_pergrad.equivalence.causes.instruments._placing import Placing, find_placing
from keras_pergrad.equivalence.causes.instruments._terms import Term, find_terms
from keras_pergrad.equivalence.causes.instruments._unsteady import Unsteady, find_unsteady
from keras_pergrad.runs import Call, Run, ties_in_loss


@dataclass
class Case:
    """A check that failed, and instruments to find out why. Runs eagerly, on the host.

    Attributes:
        request, report: the check.
        run: of the few samples, for their own gradients.
        real: the batch gradient of a real training step on them.
        samples: their places in the batch that was checked.
        blamed: the losses that a cause has been found for.
        blamed_layers: the ids of such layers.
    """

    request: Request
    report: EquivalenceReport
    run: Run
    real: Gradient
    samples: list[int]
    blamed: set[str] = field(default_factory=set)
    blamed_layers: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, request: Request, report: EquivalenceReport) -> Case:
        """The check on a few samples; on more, if those do not show what the batch shows."""
        try:
            for count in counts(request):
                case = cls._on(request, report, count)
                if case.shows:
                    break
        except (ValueError, TypeError, tf.errors.OpError):  # it runs on no other number of samples
            return cls._on(request, report, int(request.batch.size))
        return case

    @classmethod
    def _on(cls, request: Request, report: EquivalenceReport, count: int) -> Case:
        batch, rows = request.batch, tf.range(int(request.batch.size))
        if count < len(rows):  # neighbours may be alike
            rows = tf.sort(pick(len(rows), count, request.turn))
            batch = batch.rows(rows)
        part = Request(request.model, batch, request.engine, None, request.memory_budget, 0)
        places = rows.numpy().tolist()
        if request.places is not None:
            places = [request.places[row] for row in places]
        return cls(request, report, *as_in_training(part, of="own"), places)

    @property
    def model(self) -> keras.Model:
        return self.run.model

    @property
    def size(self) -> int:
        """How many samples are looked at."""
        return int(self.run.size)

    @property
    def whole(self) -> int:
        """How many samples the batch that was checked has."""
        return self.report.num_samples

    @property
    def rtol(self) -> float:
        """The largest relative error that rounding explains, whatever was asked for."""
        tolerance = self.report.tolerance
        return max(tolerance.rtol, Tolerance.of(tolerance.dtype).rtol)

    @property
    def alone(self) -> bool:
        """Whether a sample can be run alone at all."""
        return why_not_alone(self.run) is None

    @property
    def shows(self) -> bool:
        """Whether these samples show what the batch shows, as far as that can be told."""
        return not self.alone or self.difference.relative >= self.report.max_relative_error / 3

    @cached_property
    def run_alone(self) -> Alone:
        """The samples, each run alone by the loop."""
        return in_turn(self.run, tf.range(self.size))

    @property
    def own(self) -> list[tf.Tensor]:
        """Their own gradients: `[n, *weight.shape]`."""
        return self.run_alone.gradients

    @cached_property
    def batch(self) -> Gradient:
        """The gradient of the samples' part of the batch's scalar."""
        return self.run.batch_gradient(of_samples=True)[1]

    @cached_property
    def difference(self) -> Difference:
        """What the mean of the samples' own gradients has more than that.

        None that is known where no sample can be run alone.
        """
        mean = mean_of(self.own) if self.alone else self.batch
        return Difference(self.run, mean, self.batch, self.rtol)

    @cached_property
    def batch_term(self) -> Gradient:
        """The gradient of the terms that no sample owns."""
        return self.run.batch_term()

    @cached_property
    def calls(self) -> Call:
        """The layers' calls in the forward pass."""
        return self.run.calls()

    @cached_property
    def unsteady(self) -> list[Unsteady]:
        """The layers whose calls cannot be repeated."""
        return find_unsteady(self.run, self.calls)

    @cached_property
    def loss_repeats(self) -> bool:
        """Whether the loss of the same predictions is the same number; or it is none at all."""
        one, other = (float(self.run.loss_at(self.run.y_pred)) for _ in range(2))
        return not abs(one - other) > 10 * self.rtol * max(abs(one), abs(other))

    @property
    def name_of_loss(self) -> str:
        """What the whole loss is called."""
        losses = _keras.loss_objects(self.model)[1:]
        own = type(self.model).compute_loss is not keras.Model.compute_loss
        return "compute_loss" if own or len(losses) != 1 else losses[0].name

    @cached_property
    def trace(self) -> PrimeTrace:
        """The run, traced and not run; with the errors of a model that cannot be traced so."""
        return PrimeTrace(self.run, sizes_in(self.calls))

    @cached_property
    def mixing(self) -> list[Mixing]:
        """The layers that mix the samples, in the order in which they do; of those that repeat."""
        unsteady = {id(each.call) for each in self.unsteady}
        return find_mixing(self.run, self.calls, self.rtol, unsteady)

    @cached_property
    def placing(self) -> list[Placing]:
        """The layers that look at a sample's place or at the batch's size."""
        held = [each.layer for each in self.mixing]
        alone = self.run_alone.predictions if self.alone else None
        return find_placing(self.run, self.calls, 10 * self.rtol, held, alone)

    @cached_property
    def terms(self) -> list[Term]:
        """What the layers give to `add_loss`."""
        layers = [*(each.layer for each in self.mixing), *(each.layer for each in self.placing)]
        return find_terms(self.run, tuple(layers), self.rtol)

    @cached_property
    def outputs(self) -> list[Output]:
        """What the loss does with each output."""
        return find_outputs(self.run, self.rtol)

    @property
    def error_of_contributions(self) -> float | None:
        """Of the mean of the samples' own gradients with their weights in the loss, beside the
        batch gradient; None unless those are the weights of one loss that Keras reduces."""
        if not self.alone or len(self.outputs) != 1 or self.run.is_opaque or any(self.tied):
            return None
        if not self.outputs[0].is_weighed_by_keras(self.size, 100 * self.rtol):
            return None
        weights = np.nan_to_num(self.outputs[0].weights)  # NaN where nothing comes of a sample
        found = weighted_mean_of(self.own, weights.tolist())
        return norm(minus(found, self.batch)) / norm(self.batch) if norm(self.batch) else None

    def undo_loss(self, output: Output) -> float | None:
        """Which part of the difference goes with the loss of an output, alone where that can be."""
        if output.compiled is None or len(self.outputs) == 1:
            return self.difference.undo(loss=True)
        return self.difference.undo(losses=(output.compiled,))

    @cached_property
    def tied(self) -> list[bool]:
        """By outputs, whether the loss ties the samples, rather than weighs them."""
        half = halvings(self.size, 0)[0]
        return [moved > 100 * self.rtol for moved in ties_in_loss(self.run, (half, ~half))]
