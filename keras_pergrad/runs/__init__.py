"""Running a model on a batch, on one sample, again, at other predictions, without a trace."""

from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._dtypes import coarsest, dtypes_of
from keras_pergrad.runs._leaves import leaves, map_leaves, take
from keras_pergrad.runs._observer import Observer
from keras_pergrad.runs._recording import Recording
from keras_pergrad.runs._recurrent import recurrent_layers
from keras_pergrad.runs._run import Run
from keras_pergrad.runs._start import prepare, start
from keras_pergrad.runs._state import state_restored, trained_variables
from keras_pergrad.runs._traced import Traced
from keras_pergrad.runs._training_step import run_and_differentiate, without_loss_scale
from keras_pergrad.runs._whole import Outcome

__all__ = [
    "Batch",
    "Observer",
    "Outcome",
    "Recording",
    "Run",
    "Traced",
    "coarsest",
    "dtypes_of",
    "leaves",
    "map_leaves",
    "prepare",
    "recurrent_layers",
    "run_and_differentiate",
    "start",
    "state_restored",
    "take",
    "trained_variables",
    "without_loss_scale",
]
