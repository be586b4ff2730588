"""What a measured model asks and tells, without knowing who monitors it."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import keras

from keras_pergrad.diagnostics._probe import Probe
from keras_pergrad.diagnostics._record import OutlierRow, Record


class Monitor(abc.ABC):
    """Follows a training through the numbers that its probe measures.

    Attributes:
        probe: what measures.
    """

    probe: Probe

    @property
    @abc.abstractmethod
    def records(self) -> Sequence[Record]:
        """The measured steps."""

    @abc.abstractmethod
    def outliers(self) -> list[OutlierRow]:
        """The rows of the data that stood out most, the worst first."""

    @abc.abstractmethod
    def before_call(self, model: keras.Model) -> None:
        """Is called before each call of Keras' train function."""

    @abc.abstractmethod
    def after_call(self, model: keras.Model, logs: Any) -> Any:
        """Is called after it, with its logs; answers those that Keras goes on with."""

    @property
    @abc.abstractmethod
    def is_left(self) -> bool:
        """Whether a training that it follows was never ended, as by an error in a callback."""
