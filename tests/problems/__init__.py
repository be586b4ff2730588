"""One list of problems (model, loss, batch) for every engine, rule and diagnostic."""

from tests.problems import (
    kinds,
    layers_attention,
    layers_conv,
    layers_dense,
    layers_normalization,
    layers_other,
    layers_recurrent,
    losses,
    losses_terms,
    losses_weighted,
)
from tests.problems._base import Batch, Problem, compiled, floats, images, stack, whole

PROBLEMS: tuple[Problem, ...] = (
    *layers_dense.PROBLEMS,
    *layers_conv.PROBLEMS,
    *layers_recurrent.PROBLEMS,
    *layers_attention.PROBLEMS,
    *layers_normalization.PROBLEMS,
    *layers_other.PROBLEMS,
    *losses.PROBLEMS,
    *losses_weighted.PROBLEMS,
    *losses_terms.PROBLEMS,
    *kinds.PROBLEMS,
)


def by_tag(*tags: str, without: tuple[str, ...] = ()) -> tuple[Problem, ...]:
    """Problems that have all of `tags` and none of `without`."""
    wanted, unwanted = set(tags), set(without)
    return tuple(p for p in PROBLEMS if wanted <= p.tags and not unwanted & p.tags)


def by_name(name: str) -> Problem:
    """The problem of that name."""
    return next(problem for problem in PROBLEMS if problem.name == name)


__all__ = [
    "PROBLEMS",
    "Batch",
    "Problem",
    "by_name",
    "by_tag",
    "compiled",
    "floats",
    "images",
    "stack",
    "whole",
]
