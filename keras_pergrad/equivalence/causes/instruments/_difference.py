"""What two gradients differ by, undone piece by piece."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

import keras
import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines import in_turn
from keras_pergrad.equivalence.causes.instruments._gradient import (
    Gradient,
    inner,
    mean_of,
    minus,
    norm,
)
from keras_pergrad.equivalence.causes.instruments._terms import Term
from keras_pergrad.errors import PerGradError
from keras_pergrad.runs import Apart, Run

NEGLIGIBLE = 0.02  # of a difference


@dataclass
class Difference:
    """What the mean of the samples' own gradients has more than the batch gradient.

    It is undone piece by piece: each cause that knows how says what else is to meet the samples one
    at a time, and what that changes in the batch gradient is the part of the difference that it
    explains: its projection on the difference, over the square of that. The parts of several
    causes and what remains add up to 1. Where causes multiply, the one undone first gets what they
    share, so that the parts depend on the order.

    Attributes:
        run: of the samples looked into.
        mean, batch: the two gradients.
        rtol: the largest relative error that rounding explains.
        undone: what has been undone already.
        changed: whether what was undone last has changed the gradient by more than rounding.
    """

    run: Run
    mean: Gradient
    batch: Gradient
    rtol: float
    undone: Apart = field(default_factory=Apart)
    changed: bool = False
    _reached: Gradient | None = None

    @cached_property
    def gradient(self) -> Gradient:
        """The difference itself."""
        return minus(self.mean, self.batch)

    @cached_property
    def relative(self) -> float:
        """The difference over the batch gradient; infinite where that is zero."""
        whole = norm(self.batch)
        return norm(self.gradient) / whole if whole else float("inf")

    @cached_property
    def exists(self) -> bool:
        """Whether there is a difference at all."""
        return norm(self.gradient) > 10 * self.rtol * max(norm(self.mean), norm(self.batch))

    @property
    def reached(self) -> Gradient:
        """The batch gradient with all that has been undone."""
        return self.batch if self._reached is None else self._reached

    @property
    def remainder(self) -> float:
        """What is left of the difference, over the difference."""
        left = norm(minus(self.mean, self.reached))
        return left / norm(self.gradient) if self.exists else 0.0

    def is_left(self) -> bool:
        """Whether more of it is left than what causes that were undone may have overlooked."""
        return self.exists and self.remainder > NEGLIGIBLE

    def undo(
        self,
        *,
        layers: tuple[keras.Layer, ...] = (),
        factors: tuple[tuple[int, float], ...] = (),
        reductions: frozenset[int] = frozenset(),
        losses: tuple[_keras.CompiledLoss, ...] = (),
        loss: bool = False,
    ) -> float | None:
        """Undoes something more (see `Apart`); answers which part of the difference goes with it.

        None where it cannot be undone.
        """
        before, done = self.reached, self.undone
        more = Apart(
            done.layers + layers,
            done.factors + factors,
            done.reductions | reductions,
            done.losses + losses,
            done.loss or loss,
        )
        try:
            self._reached = self.run.gradient_apart(more)[1]
        except (PerGradError, ValueError, TypeError, tf.errors.OpError):
            return None
        self.undone, change = more, minus(self._reached, before)
        self.changed = norm(change) > 10 * self.rtol * norm(before)
        return self.part(change)

    def leave_out(self, term: Term) -> float | None:
        """The part that a term makes, which cannot be given to its samples."""
        if not self.exists:
            return None
        without = dataclasses.replace(self.run)
        without.free_terms = [
            free or k == term.number for k, free in enumerate(self.run.free_terms)
        ]
        mean = mean_of(in_turn(without, tf.range(int(self.run.size))).gradients)
        rest = minus(mean, without.batch_gradient(of_samples=True)[1])
        made = minus(self.gradient, rest)
        self._reached = minus(self.reached, [-each for each in made])
        return self.part(made)

    def leave_nothing(self) -> float:
        """Takes what is left for explained, by what cannot be undone piece by piece."""
        rest = self.remainder if self.exists else 1.0
        self._reached = self.mean
        return rest

    def part(self, gradient: Gradient) -> float | None:
        """A gradient's projection on the difference, over the square of that."""
        whole = norm(self.gradient) ** 2
        return inner(gradient, self.gradient) / whole if self.exists else None
