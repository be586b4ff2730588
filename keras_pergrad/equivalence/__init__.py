"""Do two paths to the batch gradient agree; and why not."""

from keras_pergrad.equivalence._cause import Cause
from keras_pergrad.equivalence._chance import pick
from keras_pergrad.equivalence._check import assert_equivalent, check_equivalence, explained
from keras_pergrad.equivalence._evidence import Evidence, gather_evidence
from keras_pergrad.equivalence._explain import Definition, Explanation, explain
from keras_pergrad.equivalence._judge import Subject, judge
from keras_pergrad.equivalence._once import Request, subject_of
from keras_pergrad.equivalence._probe import Coupling
from keras_pergrad.equivalence._ratios import badness, tells
from keras_pergrad.equivalence._report import EquivalenceReport, Finding, VariableRow
from keras_pergrad.equivalence._tie_breaker import tried_again
from keras_pergrad.equivalence._tolerance import Tolerance, expect_rtol
from keras_pergrad.equivalence.causes import layers_with_batch_statistics

__all__ = [
    "Cause",
    "Coupling",
    "Definition",
    "EquivalenceReport",
    "Evidence",
    "Explanation",
    "Finding",
    "Request",
    "Subject",
    "Tolerance",
    "VariableRow",
    "assert_equivalent",
    "badness",
    "check_equivalence",
    "expect_rtol",
    "explain",
    "explained",
    "gather_evidence",
    "judge",
    "layers_with_batch_statistics",
    "pick",
    "subject_of",
    "tells",
    "tried_again",
]
