"""How one run's sample gradients are read off its one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import tensorflow as tf

from keras_pergrad import _keras
from keras_pergrad.engines._regions import find_regions
from keras_pergrad.gradients import Nothing, Scaled, Total, summed, tensors_of, times, with_tensors
from keras_pergrad.runs import Observer, Run
from keras_pergrad.sites import NoSiteError, Site, Trace, factor_at, prime_for


@dataclass
class Plan(Observer):
    """The factors of a run, found while a graph is traced.

    Attributes:
        run: the run.
        factors: by the number of the variable, for those that sites were found of.
        operations: by the number of the variable, the kinds of those in which it meets samples.
        places: the same operations with their names.
        fallbacks: by the number of the variable, why there is no factor.
        remarks: what a person should know.
        interacts: whether samples meet what was made of all of them.
        observed: whether the run was a real training step.
        unnoticed: whether that step's update must not notice it: its own gradients are read only
            where no other reader keeps TensorFlow from rewriting the update as it would.
    """

    run: Run
    factors: dict[int, Scaled] = field(default_factory=dict)
    operations: dict[int, tuple[str, ...]] = field(default_factory=dict)
    places: dict[int, tuple[str, ...]] = field(default_factory=dict)
    fallbacks: dict[int, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    interacts: bool = False
    observed: bool = False
    unnoticed: bool = False
    gradients: list[tf.Tensor] = field(default_factory=list)
    scale: tf.Tensor | None = None
    totals: list[tf.Tensor] = field(default_factory=list)
    _sites: list[list[Site]] = field(default_factory=list)

    @classmethod
    def of(cls, run: Run) -> Plan:
        return cls(run)

    @classmethod
    def aside(cls, run: Run) -> Plan:
        return cls(run, unnoticed=True)

    def choose(
        self,
        operations: Sequence[tf.Operation],
        weights: Sequence[Sequence[tf.Tensor]],
        forward: int,
    ) -> list[tf.Tensor]:
        trace = Trace(operations)
        found = find_regions(self.run, prime_for(trace.sizes()))
        self.fallbacks.update(found.fallbacks)
        if found.interaction is not None:
            self.note_interaction(f"first at {found.interaction!r}")
        for k, readings in enumerate(weights):
            penalized = self.run.variables[k].regularizer is not None
            extra_from = forward if penalized else len(operations)
            try:
                region = found.regions.get(k)
                sites = region.sites(trace, readings, extra_from=extra_from) if region else []
                self._sites.append(sites)
            except NoSiteError as error:
                self.fallbacks[k] = str(error)
                self._sites.append([])
        return [site.output for sites in self._sites for site in sites]

    def tensors(self) -> list[tf.Tensor]:
        """Makes the factors, in the graph that is being traced; answers what they hold."""
        if not self._sites:
            self.run.observe(self)
        self._read()
        held = [each for factor in self.factors.values() for each in tensors_of(factor)]
        return [*self.totals, *held]

    def run_once(self) -> None:
        """Makes the factors eagerly, by a graph that is run once and emptied."""
        traced = _keras.compiled(self.tensors).get_concrete_function()
        with _keras.run_as_traced():
            self.refill(traced())
        _keras.emptied(traced.graph)

    def refill(self, tensors: Sequence[tf.Tensor]) -> None:
        """Lets the factors hold other tensors: those that leave the graph."""
        self._sites, self.gradients, count = [], [], len(self.totals)
        self.totals, rest = list(tensors[:count]), list(tensors[count:])
        self.factors = {k: with_tensors(f, rest) for k, f in self.factors.items()}

    def expected(self) -> Total:
        """The samples taken together, for each weight: by the tape, or from what is kept.

        In a graph of its own the factors are added up, in the place of the products that the tape
        would make of the same operands.
        """
        if self.observed:
            find = self._left_alone if self.unnoticed else self._without_terms
        else:
            find = self._by_the_tape if tf.executing_eagerly() else self._together
        return Total(find, self.run.size, are_means=not self.run.sums_own_losses)

    def _by_the_tape(self) -> list[tf.Tensor]:
        return list(self.totals)

    def _without_terms(self) -> list[tf.Tensor]:
        """The real scalar has the terms that no sample owns."""
        pairs = zip(self.totals, self.run.batch_term(), strict=True)
        return [total - tf.cast(term, total.dtype) for total, term in pairs]

    def _left_alone(self) -> list[tf.Tensor]:
        """As `_without_terms`, but for what the update would notice being read: added up."""
        return [
            total if _keras.may_be_read(total) else self._added_up(k, total)
            for k, total in enumerate(self.totals)
        ]

    def _together(self) -> list[tf.Tensor]:
        return [self._added_up(k, total) for k, total in enumerate(self.totals)]

    def note_interaction(self, where: str) -> None:
        """Remarks that the samples interact, or that it cannot be ruled out."""
        self.interacts = True
        self.remarks.append(
            f"The samples interact, or it is not certain that they do not, {where}: these are "
            "shares, the parts of the batch gradient that flow through each sample's activations."
        )

    def give_up(self, k: int, because: str) -> None:
        """Has the sample gradients of one weight computed otherwise."""
        del self.factors[k]
        self.fallbacks[k] = because

    # --- from sites to factors ---

    def _read(self) -> None:
        number, rest = self._number(), self.gradients
        for k, here in enumerate(self._sites):
            found, rest = rest[: len(here)], rest[len(here) :]
            if k not in self.fallbacks:
                self._read_one(k, here, found, number)

    def _read_one(
        self, k: int, sites: list[Site], gradients: list[tf.Tensor], number: tf.Tensor
    ) -> None:
        weight = self.run.weights[k]
        try:
            met = [site.output for site in sites]
            parts = [factor_at(s, g, met) for s, g in zip(sites, gradients, strict=True)]
        except NoSiteError as error:
            self.fallbacks[k] = str(error)
            return
        if not parts:
            parts = [Nothing(tf.zeros([self.run.size], weight.dtype), tuple(weight.shape))]
        self.factors[k] = times(number, summed(parts).cheapest())
        self.operations[k] = tuple(site.operation.type for site in sites)
        self.places[k] = tuple(site.place for site in sites)

    def _added_up(self, k: int, total: tf.Tensor) -> tf.Tensor:
        """The samples' parts of one weight's gradient, added up where they are known."""
        factor = self.factors.get(k)
        if factor is None:
            return total
        scale = 1 if self.scale is None else 1 / tf.cast(self.scale, tf.float64)
        return times(scale, factor.seen).weighted_sum(None)

    def _number(self) -> tf.Tensor:
        """What turns the gradients at the sites into those of the samples."""
        number = self._times()
        return number if self.scale is None else number / tf.cast(self.scale, number.dtype)

    def _times(self) -> tf.Tensor:
        """What a sample's part of the scalar's gradient is multiplied by.

        A contribution is `B ∇c_i`. For own gradients the scalar is the sum of the samples' losses,
        unless the user's own code reduces it.
        """
        return tf.cast(1 if self.run.sums_own_losses else self.run.size, tf.float64)
