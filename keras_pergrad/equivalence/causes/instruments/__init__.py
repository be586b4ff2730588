"""What causes are looked for with: a failed check on a few samples, asked piece by piece."""

from keras_pergrad.equivalence.causes.instruments._case import Case
from keras_pergrad.equivalence.causes.instruments._difference import Difference
from keras_pergrad.equivalence.causes.instruments._gradient import Gradient, inner, minus, norm
from keras_pergrad.equivalence.causes.instruments._mixing import Mixing
from keras_pergrad.equivalence.causes.instruments._outputs import Output, find_outputs
from keras_pergrad.equivalence.causes.instruments._place import place_of
from keras_pergrad.equivalence.causes.instruments._placing import Placing
from keras_pergrad.equivalence.causes.instruments._terms import Term
from keras_pergrad.equivalence.causes.instruments._unsteady import Unsteady
from keras_pergrad.equivalence.causes.instruments._use import why_unread
from keras_pergrad.equivalence.causes.instruments._way import Way, way_to_loss

__all__ = [
    "Case",
    "Difference",
    "Gradient",
    "Mixing",
    "Output",
    "Placing",
    "Term",
    "Unsteady",
    "Way",
    "find_outputs",
    "inner",
    "minus",
    "norm",
    "place_of",
    "way_to_loss",
    "why_unread",
]
