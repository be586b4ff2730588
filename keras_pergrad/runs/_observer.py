"""What may look on while a run is differentiated."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from keras_pergrad.runs._run import Run


class Observer(abc.ABC):
    """Chooses tensors of a run, in whose gradients it is interested.

    Attributes:
        gradients: those at the tensors, in their order, once the run has been differentiated.
        scale: what those are multiplied by, so that they neither over- nor underflow; or None.
        totals: those of the weights; of a real training step, of its whole scalar.
    """

    gradients: list[tf.Tensor]
    scale: tf.Tensor | None
    totals: list[tf.Tensor]

    @classmethod
    @abc.abstractmethod
    def of(cls, run: Run) -> Observer:
        """One that looks on in a real training step's pass, which goes on from what it answers."""

    @classmethod
    @abc.abstractmethod
    def aside(cls, run: Run) -> Observer:
        """One that the update of that step must not notice, to the last bit."""

    @abc.abstractmethod
    def choose(
        self,
        operations: Sequence[tf.Operation],
        weights: Sequence[Sequence[tf.Tensor]],
        forward: int,
    ) -> list[tf.Tensor]:
        """The tensors.

        Args:
            operations: those of the run, in their order.
            weights: every reading of each weight in it.
            forward: how many of the operations are the forward pass, before the loss.
        """
