"""What a user subclasses, or attaches; and the settings of `compile`."""

from keras_pergrad.models._attach import Attachment, attach, detach
from keras_pergrad.models._batch_norm import replace_batch_norm
from keras_pergrad.models._mixin import PerGradMixin
from keras_pergrad.models._model import PerGradFunctional, PerGradModel, PerGradSequential
from keras_pergrad.models._monitored import start_monitoring, stop_monitoring
from keras_pergrad.models._settings import EquivalenceCheck, PerSample

__all__ = [
    "Attachment",
    "EquivalenceCheck",
    "PerGradFunctional",
    "PerGradMixin",
    "PerGradModel",
    "PerGradSequential",
    "PerSample",
    "attach",
    "detach",
    "replace_batch_norm",
    "start_monitoring",
    "stop_monitoring",
]
