"""From sample gradients to named numbers: one small class for each.

`_probe.py` measures primitives where the model runs; on the host a step's primitives become terms
(`_diagnostic.py`), terms of several steps are put together, and numbers are made of those.
`_catalogue.py` lists the diagnostics.
"""

from keras_pergrad.diagnostics._catalogue import diagnostics_of, expect_group, expect_names
from keras_pergrad.diagnostics._condensed import Condensed
from keras_pergrad.diagnostics._conflict import LossConflict, loss_conflict
from keras_pergrad.diagnostics._diagnostic import Diagnostic
from keras_pergrad.diagnostics._epochs import by_epoch
from keras_pergrad.diagnostics._file import RecordFile, load_records
from keras_pergrad.diagnostics._groups import MODEL, Groups
from keras_pergrad.diagnostics._histograms import EDGES, norm_quantiles
from keras_pergrad.diagnostics._journal import Journal
from keras_pergrad.diagnostics._monitor import Monitor
from keras_pergrad.diagnostics._noise_scale import NoiseScaleEstimate, noise_scale
from keras_pergrad.diagnostics._noise_split import NoiseSplit, noise_split
from keras_pergrad.diagnostics._outliers import OutlierTable
from keras_pergrad.diagnostics._primitives import (
    ALIGNMENTS,
    MEAN_SQUARES,
    PROJECTIONS,
    SQUARED_NORMS,
    of_samples,
    of_step,
)
from keras_pergrad.diagnostics._probe import Probe
from keras_pergrad.diagnostics._record import OutlierRow, Record
from keras_pergrad.diagnostics._sample_sums import SampleSums
from keras_pergrad.diagnostics._scores import Scores
from keras_pergrad.diagnostics._step import MeasuredStep
from keras_pergrad.diagnostics._summary import Summary
from keras_pergrad.diagnostics._terms import Terms, Window

__all__ = [
    "ALIGNMENTS",
    "EDGES",
    "MEAN_SQUARES",
    "MODEL",
    "PROJECTIONS",
    "SQUARED_NORMS",
    "Condensed",
    "Diagnostic",
    "Groups",
    "Journal",
    "LossConflict",
    "MeasuredStep",
    "Monitor",
    "NoiseScaleEstimate",
    "NoiseSplit",
    "OutlierRow",
    "OutlierTable",
    "Probe",
    "Record",
    "RecordFile",
    "SampleSums",
    "Scores",
    "Summary",
    "Terms",
    "Window",
    "by_epoch",
    "diagnostics_of",
    "expect_group",
    "expect_names",
    "load_records",
    "loss_conflict",
    "noise_scale",
    "noise_split",
    "norm_quantiles",
    "of_samples",
    "of_step",
]
