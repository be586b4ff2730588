"""What may look on while a run is differentiated."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import tensorflow as tf


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
