"""The contract of an engine, and the engines by their names."""

from __future__ import annotations

import abc
from typing import ClassVar

from keras_pergrad.errors import PerGradError
from keras_pergrad.gradients import Blocks
from keras_pergrad.runs import Observer, Run


class Engine(abc.ABC):
    """A way to compute the sample gradients of a run.

    Attributes:
        name: what `engine=` calls it.
        definition: which of the three definitions of a sample's gradient it computes:
            `"isolated"`, `"jacobian"` or `"share"`.
        observer: what, made for a run, looks on while a training step is differentiated, so that
            the engine needs no pass of its own; None for engines that do.
    """

    name: ClassVar[str]
    definition: ClassVar[str]
    observer: ClassVar[type[Observer] | None] = None

    @abc.abstractmethod
    def blocks(self, run: Run, memory_budget: int) -> Blocks:
        """The losses and gradients of all samples, not scaled by `1/B`.

        Args:
            run: the batch that was run.
            memory_budget: bytes that the gradients of one block may need at once.

        Raises:
            UnsupportedError: the engine cannot run this model; the message names one that can.
        """

    def looked_on(self, run: Run) -> bool:
        """Whether it has seen the run's own backward pass, and needs none of its own."""
        return False

    def as_traced(self) -> Engine:
        """The engine as it is in a graph: for a run by hand that judges what was done in one."""
        return self


def by_name(engine: str | Engine, known: dict[str, type[Engine]]) -> Engine:
    """The engine itself, or a new one of that name.

    Raises:
        PerGradError: no engine has that name.
    """
    if isinstance(engine, Engine):
        return engine
    if engine not in known:
        names = ", ".join(repr(name) for name in known)
        raise PerGradError(
            f"There is no such engine. Choose one of {names}. Received: engine={engine!r}."
        )
    return known[engine]()
