"""What a cause is looked for in: one failed check, made again on a few samples, piece by piece."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

import keras
import tensorflow as tf

from keras_pergrad.engines import one_by_one, why_not_alone
from keras_pergrad.equivalence._chance import halvings, pick
from keras_pergrad.equivalence._once import Request, as_in_training
from keras_pergrad.equivalence._report import EquivalenceReport
from keras_pergrad.equivalence._tolerance import Tolerance
from keras_pergrad.equivalence.causes._mixing import Mixing, find_mixing
from keras_pergrad.equivalence.causes._outputs import Output, find_outputs
from keras_pergrad.equivalence.causes._terms import Term, find_terms
from keras_pergrad.errors import PerGradError
from keras_pergrad.runs import Apart, Call, Run, ties_in_loss

Gradient = list[tf.Tensor]

PRIMES = (13, 11, 7, 5, 3)
MORE = (64, 1024)  # where fewer do not show the difference


@dataclass
class Case:
    """A check that failed, and instruments to find out why. Runs eagerly, on the host.

    The difference is looked at on a few samples of the batch, as many as no other axis has entries,
    so that shapes tell where the samples are. It is then undone piece by piece: each cause that
    knows how says what else is to meet the samples one at a time, and what that changes is the part
    of the difference that it explains.

    Attributes:
        request, report: the check.
        run: of the few samples, for their own gradients.
        real: the batch gradient of a real training step on them.
        samples: their places in the batch.
        undone: what has been undone already.
        blamed: the losses that a cause has been found for.
    """

    request: Request
    report: EquivalenceReport
    run: Run
    real: Gradient
    samples: list[int]
    undone: Apart = field(default_factory=Apart)
    blamed: set[str] = field(default_factory=set)
    _reached: Gradient | None = None

    @classmethod
    def of(cls, request: Request, report: EquivalenceReport) -> Case:
        """The check on a few samples; on more, if those do not show what the batch shows."""
        whole = int(request.batch.size)
        few = next(
            (p for p in PRIMES if p <= whole and _is_free(p, request)), min(whole, PRIMES[0])
        )
        try:
            case = cls._on(request, report, few)
            for more in MORE:
                if case.shows or case.size == whole:
                    break
                case = cls._on(request, report, min(whole, more))
        except (ValueError, TypeError, tf.errors.OpError):  # it runs on no other number of samples
            return cls._on(request, report, whole)
        return case

    @classmethod
    def _on(cls, request: Request, report: EquivalenceReport, count: int) -> Case:
        batch, rows = request.batch, tf.range(int(request.batch.size))
        if count < len(rows):  # neighbours may be alike
            rows = tf.sort(pick(len(rows), count, request.turn))
            batch = batch.rows(rows)
        part = Request(request.model, batch, request.engine, None, request.memory_budget, 0)
        return cls(request, report, *as_in_training(part, of="own"), rows.numpy().tolist())

    # --- what is known ---

    @property
    def model(self) -> keras.Model:
        return self.run.model

    @property
    def size(self) -> int:
        """How many samples are looked at."""
        return int(self.run.size)

    @property
    def whole(self) -> int:
        """How many samples the batch has."""
        return int(self.request.batch.size)

    @property
    def rtol(self) -> float:
        """The largest relative error that rounding explains, whatever was asked for."""
        tolerance = self.report.tolerance
        return max(tolerance.rtol, Tolerance.of(tolerance.dtype).rtol)

    @property
    def alone(self) -> bool:
        """Whether a sample can be run alone at all."""
        return why_not_alone(self.run) is None

    @cached_property
    def own(self) -> list[tf.Tensor]:
        """The samples' own gradients, each run alone by the loop: `[n, *weight.shape]`."""
        return one_by_one(self.run, tf.range(self.size))[1]

    @cached_property
    def mean(self) -> Gradient:
        """Their mean."""
        return [tf.reduce_mean(each, axis=0) for each in self.own]

    @cached_property
    def batch(self) -> Gradient:
        """The gradient of the samples' part of the batch's scalar."""
        return self.run.batch_gradient(of_samples=True)[1]

    @cached_property
    def batch_term(self) -> Gradient:
        """The gradient of the terms that no sample owns."""
        return self.run.batch_term()

    @cached_property
    def calls(self) -> Call:
        """The layers' calls in the forward pass."""
        return self.run.calls()

    @cached_property
    def mixing(self) -> list[Mixing]:
        """The layers that mix the samples, in the order in which they do."""
        return find_mixing(self.run, self.calls, self.rtol)

    @cached_property
    def terms(self) -> list[Term]:
        """What the layers give to `add_loss`."""
        return find_terms(self.run, tuple(each.layer for each in self.mixing), self.rtol)

    @cached_property
    def outputs(self) -> list[Output]:
        """What the loss does with each output."""
        return find_outputs(self.run, self.rtol)

    # --- the difference, and what explains it ---

    @cached_property
    def difference(self) -> Gradient:
        """What the mean of the samples' own gradients has more than the batch's."""
        return minus(self.mean, self.batch)

    @property
    def relative(self) -> float:
        """The difference over the batch gradient; infinite where that is zero."""
        whole = norm(self.batch)
        return norm(self.difference) / whole if whole else float("inf")

    @property
    def shows(self) -> bool:
        """Whether these samples show what the batch shows, as far as that can be told."""
        return not self.alone or self.relative >= self.report.max_relative_error / 3

    @property
    def differs(self) -> bool:
        """Whether there is a difference on these samples."""
        return norm(self.difference) > 10 * self.rtol * max(norm(self.mean), norm(self.batch))

    def undo(
        self,
        *,
        layers: tuple[keras.Layer, ...] = (),
        factors: tuple[tuple[int, float], ...] = (),
        reductions: frozenset[int] = frozenset(),
        loss: bool = False,
    ) -> float | None:
        """Undoes something more (see `Apart`); answers which part of the difference goes with it.

        The parts of several things add up to 1 with what remains: each is its projection on the
        difference, over the square of that. None where it cannot be undone.
        """
        before, done = self.reached, self.undone
        more = Apart(
            done.layers + layers,
            done.factors + factors,
            done.reductions | reductions,
            done.loss or loss,
        )
        try:
            self._reached = self.run.gradient_apart(more)[1]
        except (PerGradError, ValueError, TypeError, tf.errors.OpError):
            return None
        self.undone = more
        return self.part(minus(self._reached, before))

    def leave_out(self, term: Term) -> float | None:
        """The part of the difference that a term makes, which cannot be given to its samples."""
        if not self.differs:
            return None
        without = dataclasses.replace(self.run)
        without.free_terms = [
            free or k == term.number for k, free in enumerate(self.run.free_terms)
        ]
        own = one_by_one(without, tf.range(self.size))[1]
        mean = [tf.reduce_mean(each, axis=0) for each in own]
        rest = minus(mean, without.batch_gradient(of_samples=True)[1])
        made = minus(self.difference, rest)
        self._reached = minus(self.reached, [-each for each in made])
        return self.part(made)

    def leave_nothing(self) -> float:
        """Takes the whole difference for explained, by what cannot be undone piece by piece."""
        rest = self.remainder if self.differs else 1.0
        self._reached = self.mean
        return rest

    def part(self, gradient: Gradient) -> float | None:
        """A gradient's projection on the difference, over the square of that."""
        whole = norm(self.difference) ** 2
        return inner(gradient, self.difference) / whole if self.differs else None

    @cached_property
    def tied(self) -> list[bool]:
        """By outputs, whether the loss ties the samples, rather than weighs them."""
        half = halvings(self.size, 0)[0]
        each = zip(ties_in_loss(self.run, half), ties_in_loss(self.run, ~half), strict=True)
        return [max(moved) > 100 * self.rtol for moved in each]

    @property
    def reached(self) -> Gradient:
        """The batch gradient with all that has been undone."""
        return self.batch if self._reached is None else self._reached

    @property
    def remainder(self) -> float:
        """What is left of the difference, over the difference."""
        left = norm(minus(self.mean, self.reached))
        return left / norm(self.difference) if self.differs else 0.0


def minus(left: Gradient, right: Gradient) -> Gradient:
    """The difference of two gradients, in double precision."""
    pairs = zip(left, right, strict=True)
    return [tf.cast(a, tf.float64) - tf.cast(b, tf.float64) for a, b in pairs]


def inner(left: Gradient, right: Gradient) -> float:
    """Their inner product."""
    pairs = zip(left, right, strict=True)
    return sum(
        float(tf.reduce_sum(tf.cast(a, tf.float64) * tf.cast(b, tf.float64))) for a, b in pairs
    )


def norm(gradient: Gradient) -> float:
    """The Euclidean norm over all variables."""
    return inner(gradient, gradient) ** 0.5


def _is_free(count: int, request: Request) -> bool:
    """Whether no axis of the data or of a weight has a multiple of `count` entries."""
    shapes = [leaf.shape[1:] for leaf in request.batch.leaves]
    shapes += [variable.shape for variable in request.model.variables]
    return all(size is None or size % count for shape in shapes for size in shape)
