"""Per-sample gradients of Keras models: computed, compared with the batch gradient, explained."""

from keras_pergrad import (
    _backend,  # first: refuses any backend but TensorFlow  # noqa: F401
    callbacks,
    plots,
)
from keras_pergrad.diagnostics import (
    LossConflict,
    NoiseScaleEstimate,
    NoiseSplit,
    OutlierRow,
    Record,
    Scores,
    load_records,
    loss_conflict,
    noise_split,
)
from keras_pergrad.engines import per_sample_gradients
from keras_pergrad.equivalence import (
    Cause,
    EquivalenceReport,
    Explanation,
    assert_equivalent,
    check_equivalence,
    explain,
)
from keras_pergrad.errors import (
    BackendError,
    DataError,
    EquivalenceError,
    EquivalenceWarning,
    MissingExtraError,
    PerGradError,
    PerGradWarning,
    SeparationError,
    TrainStepError,
    UnsupportedError,
)
from keras_pergrad.gradients import SampleGradients
from keras_pergrad.models import (
    Attachment,
    EquivalenceCheck,
    PerGradMixin,
    PerGradModel,
    PerGradSequential,
    PerSample,
    attach,
    detach,
    replace_batch_norm,
)
from keras_pergrad.rows import locate, with_ids
from keras_pergrad.scores import score_dataset

__version__ = "0.1.0"

__all__ = [
    "Attachment",
    "BackendError",
    "Cause",
    "DataError",
    "EquivalenceCheck",
    "EquivalenceError",
    "EquivalenceReport",
    "EquivalenceWarning",
    "Explanation",
    "LossConflict",
    "MissingExtraError",
    "NoiseScaleEstimate",
    "NoiseSplit",
    "OutlierRow",
    "PerGradError",
    "PerGradMixin",
    "PerGradModel",
    "PerGradSequential",
    "PerGradWarning",
    "PerSample",
    "Record",
    "SampleGradients",
    "Scores",
    "SeparationError",
    "TrainStepError",
    "UnsupportedError",
    "assert_equivalent",
    "attach",
    "callbacks",
    "check_equivalence",
    "detach",
    "explain",
    "load_records",
    "locate",
    "loss_conflict",
    "noise_split",
    "per_sample_gradients",
    "plots",
    "replace_batch_norm",
    "score_dataset",
    "with_ids",
]
