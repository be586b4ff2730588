"""Why two gradients differ: one file a cause, each a function of a case.

`_search.py` has them in order; `instruments/` is what they look with.
"""

from keras_pergrad.equivalence.causes._only_traced import seen_to_meet
from keras_pergrad.equivalence.causes._own_train_step import trains_by_itself
from keras_pergrad.equivalence.causes._precision import rounded
from keras_pergrad.equivalence.causes._search import notes_of, with_causes
from keras_pergrad.equivalence.causes._static import batch_statistics, layers_with_batch_statistics
from keras_pergrad.equivalence.causes._unconnected import told_apart
from keras_pergrad.equivalence.causes.instruments import Case, minus, norm

__all__ = [
    "Case",
    "batch_statistics",
    "layers_with_batch_statistics",
    "minus",
    "norm",
    "notes_of",
    "rounded",
    "seen_to_meet",
    "told_apart",
    "trains_by_itself",
    "with_causes",
]
