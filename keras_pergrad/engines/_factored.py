"""`factored`: the gradient read where each weight meets samples, before it is summed over them."""

from __future__ import annotations

import dataclasses
from typing import cast

import tensorflow as tf

from keras_pergrad.engines._alone import why_not_alone
from keras_pergrad.engines._engine import Engine
from keras_pergrad.engines._jacobian import Jacobian
from keras_pergrad.engines._loop import Loop
from keras_pergrad.engines._memory import no_rows
from keras_pergrad.engines._plan import Plan
from keras_pergrad.engines._self_check import check
from keras_pergrad.engines._separation import separate
from keras_pergrad.engines._trace import refusing
from keras_pergrad.engines._vectorized import Vectorized
from keras_pergrad.errors import UnsupportedError
from keras_pergrad.gradients import Block, Blocks, Chunked, Held, Kept, beside, tensors_of
from keras_pergrad.runs import Run


class Factored(Engine):
    """One forward and one backward pass of the batch; what each weight met is kept, with the
    gradient there.

    Exact for shares: equal to the gradients of samples run alone wherever samples do not interact.
    Own gradients where they do, or where the user's code reduces the loss, are those of samples run
    alone. A weight for which no rule is certain is handed to the `vectorized` engine; `summary`
    says why.

    Args:
        self_check: whether a run by hand holds the first batch's factors against two others.
    """

    name = "factored"
    definition = "share"
    observer = Plan

    def __init__(self, *, self_check: bool = True):
        self._self_check = self_check

    def looked_on(self, run: Run) -> bool:
        seen = run.observer
        return isinstance(seen, Plan) and not seen.fallbacks and run.of == "contribution"

    def as_traced(self) -> Factored:
        return Factored(self_check=False)

    def blocks(self, run: Run, memory_budget: int) -> Blocks:
        if not run.batch.is_dense:
            raise UnsupportedError(
                "engine='factored' cannot tell the samples of ragged or sparse rows apart. Use "
                "engine='loop', or pad the rows. Received: a ragged or sparse leaf."
            )
        if isinstance(run.size, int) and run.size == 0:
            return Chunked(lambda i: Block.written_out(i, *no_rows(run)), 0, 1, memory_budget)
        if run.of == "own" and run.is_opaque:
            return _not_factored(
                run, memory_budget, "the loss is reduced where Keras cannot be asked how"
            )
        plan = self._plan(run)
        try:
            self._carry_out(plan)
        except UnsupportedError as error:
            return _not_factored(run, memory_budget, str(error).partition(" Use engine=")[0])
        if run.of == "own" and plan.interacts:
            return _not_factored(run, memory_budget, "alone, a sample does not meet the others")
        if plan.fallbacks and run.is_opaque:
            because = "; ".join(sorted(set(plan.fallbacks.values())))
            because = f"beside a loss of the model's own, {because}"
            return _not_factored(run, memory_budget, because, interacts=plan.interacts)
        run.remarks.extend(plan.remarks)
        return _with_fallbacks(plan, memory_budget)

    def _carry_out(self, plan: Plan) -> None:
        with refusing(self.name):
            if not tf.executing_eagerly():
                plan.tensors()
                return
            plan.run_once()
            if self._self_check:
                check(plan)

    def _plan(self, run: Run) -> Plan:
        """What has looked on in the real backward pass, if it saw everything; or a pass to come."""
        if not self.looked_on(run):
            return Plan(run)
        return dataclasses.replace(cast(Plan, run.observer), run=run, observed=True)


def _not_factored(run: Run, memory_budget: int, because: str, *, interacts: bool = False) -> Blocks:
    """All gradients by the reference engines, which say in their words what they cannot do."""
    blocks = _written_out(run, interacts, memory_budget)
    because = f"not factored: {because}"
    sizes = [weight.shape.num_elements() * weight.dtype.size for weight in run.weights]
    blocks.held = [Held((), "materialized", size, because) for size in sizes]
    return blocks


def _with_fallbacks(plan: Plan, memory_budget: int) -> Blocks:
    """All weights: the factors, and beside them what has to be written out."""
    run, missing = plan.run, sorted(plan.fallbacks)
    factors = [plan.factors[k] for k in sorted(plan.factors)]
    kept = Kept(run.size, lambda: _losses(plan, memory_budget), factors, memory_budget)
    blocks: Blocks = kept
    if missing:
        variables = [run.variables[k] for k in missing]
        one_by_one = dataclasses.replace(run, variables=variables)
        blocks = beside(kept, _written_out(one_by_one, plan.interacts, memory_budget), missing)
    blocks.are_shares, blocks.interacts = True, plan.interacts
    blocks.expected = plan.expected()
    blocks.held = [_held(plan, k) for k in range(len(run.variables))]
    return blocks


def _losses(plan: Plan, memory_budget: int) -> tf.Tensor:
    """The losses of the samples, which the one pass does not tell apart; run when asked for."""
    blocks: Blocks = _written_out(plan.run, plan.interacts, memory_budget)
    if plan.run.of == "contribution" and plan.run.is_opaque and not plan.interacts:
        blocks = separate(blocks, plan.run, Factored.name).insisted()
    return blocks.each(lambda block: block.losses)


def _written_out(run: Run, interacts: bool, memory_budget: int) -> Chunked:
    """By the reference engines: of samples in their batch, or run alone; the first that can.

    Raises:
        UnsupportedError: what the first of them says, if none can.
    """
    rest: list[Loop | Vectorized | Jacobian] = [Vectorized(), Loop()]
    if interacts or why_not_alone(run) is not None:
        rest.insert(0, Jacobian())

    def next_able() -> Chunked:
        refusal: UnsupportedError | None = None
        while rest:
            try:
                return rest.pop(0).blocks(run, memory_budget)
            except UnsupportedError as error:
                refusal = refusal or error
        raise refusal or UnsupportedError("No engine can run this model. Received: engine='loop'.")

    able = [next_able()]

    def find(indices: tf.Tensor) -> Block:
        while rest:
            try:
                return able[-1].at(indices)
            except UnsupportedError:
                able.append(next_able())
        return able[-1].at(indices)

    return Chunked(find, run.size, able[0].bytes_each, memory_budget)


def _held(plan: Plan, k: int) -> Held:
    if k in plan.fallbacks:
        weight = plan.run.weights[k]
        size = weight.shape.num_elements() * weight.dtype.size
        return Held((), "materialized", size, f"not factored: {plan.fallbacks[k]}")
    factor = plan.factors[k]
    of_samples = [tensor for tensor in tensors_of(factor) if tensor.shape.rank]
    size = sum((t.shape[1:].num_elements() or 0) * t.dtype.size for t in of_samples)
    return Held(plan.operations[k], factor.form, size)
