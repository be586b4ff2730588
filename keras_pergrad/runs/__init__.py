"""Running a model on a batch, on one sample, again, at other predictions, without a trace."""

from keras_pergrad.runs._alone import Weights, ties_in_loss, weights_in_loss
from keras_pergrad.runs._apart import Apart, terms_alone, terms_apart
from keras_pergrad.runs._attributes import arrays_kept
from keras_pergrad.runs._batch import Batch
from keras_pergrad.runs._calls import Call
from keras_pergrad.runs._dtypes import coarsest, dtypes_of
from keras_pergrad.runs._heard import Reduced, heard_reductions
from keras_pergrad.runs._hidden import Hidden, hidden_in, renewed
from keras_pergrad.runs._influence import influences
from keras_pergrad.runs._leaves import leaves, map_leaves, take
from keras_pergrad.runs._observer import Observer
from keras_pergrad.runs._recording import Recording
from keras_pergrad.runs._recurrent import recurrent_layers
from keras_pergrad.runs._run import Run
from keras_pergrad.runs._sample_by_sample import bears_samples, of_sample
from keras_pergrad.runs._start import build_if_unbuilt, prepare, start
from keras_pergrad.runs._state import state_restored, trained_variables
from keras_pergrad.runs._tape import CUT, UNREAD
from keras_pergrad.runs._terms import loss_of_keras, overrides_compute_loss
from keras_pergrad.runs._traced import Traced
from keras_pergrad.runs._training_step import run_and_differentiate, without_loss_scale
from keras_pergrad.runs._whole import Outcome

__all__ = [
    "CUT",
    "UNREAD",
    "Apart",
    "Batch",
    "Call",
    "Hidden",
    "Observer",
    "Outcome",
    "Recording",
    "Reduced",
    "Run",
    "Traced",
    "Weights",
    "arrays_kept",
    "bears_samples",
    "build_if_unbuilt",
    "coarsest",
    "dtypes_of",
    "heard_reductions",
    "hidden_in",
    "influences",
    "leaves",
    "loss_of_keras",
    "map_leaves",
    "of_sample",
    "overrides_compute_loss",
    "prepare",
    "recurrent_layers",
    "renewed",
    "run_and_differentiate",
    "start",
    "state_restored",
    "take",
    "terms_alone",
    "terms_apart",
    "ties_in_loss",
    "trained_variables",
    "weights_in_loss",
    "without_loss_scale",
]
