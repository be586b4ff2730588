"""Models in which nothing is wrong, though some look it: no cause is named, even if one is asked.

A check that passes names none whatever the search for causes would say. So the search is asked as
if it had failed: it may find nothing but that it found nothing.
"""

import pytest

import keras_pergrad as pg
from keras_pergrad.engines import DEFAULT_MEMORY_BUDGET, get_engine
from keras_pergrad.equivalence import Request
from keras_pergrad.equivalence.causes import Case, with_causes
from keras_pergrad.runs import Batch
from tests.broken import BROKEN
from tests.cases import make_case, nudge
from tests.problems import by_name

CLEAN = (
    "transformer",  # biases of keys, whose gradient is zero but for rounding
    "multi_head_attention_masked",
    "vae_compute_loss",
    "vae_noise_in_loss",
    "lstm_after_dense",
    "embedding_repeated_ids",
    "sample_weight",
    "sample_weight_zero",
    "tied_transposed_kernel",
    "reversible_embedding_tied",
    "batch_normalization_frozen",
)


def searched(model, batch) -> pg.EquivalenceReport:
    """The report, with what the search for causes finds whatever the verdict is."""
    report = pg.check_equivalence(model, *batch)
    request = Request(
        model, Batch.of(*batch), get_engine("vectorized"), None, DEFAULT_MEMORY_BUDGET, 0
    )
    return with_causes(report, Case.of(request, report))


@pytest.mark.thinned(3)
@pytest.mark.parametrize("name", CLEAN)
def test_no_cause_is_named_of_a_clean_model(name):
    case = make_case(by_name(name))
    report = searched(case.model, case.batch)
    assert report.equivalent, str(report)
    assert [cause.kind for cause in report.causes] == ["unexplained"], str(report)
    assert not [remark for remark in report.remarks if remark.startswith("Looking for")]


def test_the_same_search_names_a_planted_cause():
    broken = BROKEN["batch normalization"]
    model = broken.build()
    nudge(model)
    kinds = [cause.kind for cause in searched(model, broken.batch()).causes]
    assert kinds == ["sample_interaction"]
