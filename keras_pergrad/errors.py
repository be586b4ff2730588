"""The errors that the package raises, each with one meaning."""

from __future__ import annotations

from typing import Any

PAGE = "docs/differences.md"


def section_of(kind: str) -> str:
    """Where the documentation explains a cause of that kind."""
    return f"{PAGE}#{kind}"


class PerGradError(ValueError):
    """A setting, a batch or a model that sample gradients cannot be made of.

    Args:
        message: what happened, why, what to do, and last `Received: ...`.
        causes: the kinds of the causes that it comes of, whose sections the message then names.

    Attributes:
        sections: where the documentation explains those.
    """

    def __init__(self, message: str = "", *, causes: tuple[str, ...] = ()):
        self.sections = [section_of(kind) for kind in causes]
        super().__init__(_naming(self.sections, message) if causes else message)


def _naming(sections: list[str], message: str) -> str:
    """The message with the sections named before what was received, which comes last."""
    told, received, given = message.rpartition(" Received: ")
    return f"{told} See {' or '.join(sections)}.{received}{given}"


class DataError(PerGradError):
    """A batch whose leaves do not fit each other or the loss."""


class UnsupportedError(PerGradError):
    """An engine that cannot run this model. The message names one that can."""


class TrainStepError(PerGradError):
    """A model whose own `train_step` hides the measuring one."""


class SeparationError(PerGradError):
    """Contributions that do not exist: the samples interact, or the loss is no sum over them."""


class BackendError(ImportError):
    """Keras runs on another backend than TensorFlow."""


class MissingExtraError(PerGradError, ImportError):
    """A package that only some of this one needs. The message has the line that installs it."""


class EquivalenceError(AssertionError):
    """The mean of the sample gradients is not the batch gradient.

    Attributes:
        report: the `EquivalenceReport` with the numbers and the causes.
    """

    def __init__(self, report: Any):
        self.report = report
        super().__init__(str(report))


class PerGradWarning(UserWarning):
    """Something about the model that a person should know, and that stops nothing."""


class EquivalenceWarning(PerGradWarning):
    """What `EquivalenceError` says, where only a warning was asked for."""
