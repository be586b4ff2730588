"""R5: models that are broken in a known way and clean ones; every cause at its place, no others."""

from collections import Counter

from rich.console import Console
from rich.table import Table

import keras_pergrad as pg
from tests.broken import BROKEN, Broken
from tests.cases import make_case, nudge, set_dtype
from tests.figures._clean import CLEAN
from tests.figures._figure import Figure
from tests.problems import Problem, by_name, by_tag

CLEAN_LAYERS = (
    "transformer",
    "multi_head_attention",
    "multi_head_attention_causal",
    "lstm_after_dense",
    "tied_transposed_kernel",
    "conv2d",
    "embedding_repeated_ids",
    "batch_normalization_frozen",
    "spectral_normalization",
)
OTHER_LAYERS = 18  # of all that are no such, evenly


def causes_named(smoke: bool) -> Figure:
    """R5: what was planted against what was named, and what was named of clean models."""
    broken = dict(list(BROKEN.items())[:: 4 if smoke else 1])
    clean = clean_problems()[:: 4 if smoke else 1]
    table: Counter[tuple[str, str]] = Counter()
    missed = []
    for name, each in broken.items():
        wrong = wrongly_named(each, table)
        missed += [f"{name}: {wrong}"] if wrong else []
    for problem in clean:
        set_dtype("float32")
        case = make_case(problem)
        report = pg.check_equivalence(case.model, *case.batch)
        kinds = [cause.kind for cause in report.causes] or ["nothing"]
        table.update(("nothing", kind) for kind in kinds)
        missed += [] if report.equivalent else [f"{problem.name}: {', '.join(kinds)}"]
    Console(width=160).print(confusion(table))
    total = len(broken) + len(clean)
    value = f"{total - len(missed)} of {total} models ({len(clean)} clean)"
    return Figure("causes named", value, f"{total} of {total}", not missed, tuple(missed))


def clean_problems() -> list[Problem]:
    """As many models in which nothing is wrong: losses, weights, noise, and layers."""
    without = ("not_equivalent", "couples", "needs_batch", "no_decomposition", "loop_only")
    found = [by_name(name) for name in CLEAN_LAYERS]
    found += [*by_tag("kind", without=without), *by_tag("loss", without=without), *CLEAN]
    others = [p for p in by_tag("layer", without=without) if p not in found]
    return [*found, *others[:: len(others) // OTHER_LAYERS]]


def wrongly_named(broken: Broken, table: Counter) -> str:
    """What is missing from the report, or too much in it; empty if nothing."""
    set_dtype("float32")
    model = broken.build()
    nudge(model)
    report = pg.check_equivalence(model, *broken.batch(), engine=broken.engine, rtol=broken.rtol)
    found = [(cause.kind, cause.where) for cause in report.causes]
    left = list(found)
    missing = []
    for kind, place in broken.causes:
        here = next((each for each in left if each[0] == kind and place in each[1]), None)
        if here is None:
            missing.append((kind, place))
            continue
        left.remove(here)
        table[kind, kind] += 1
    for (kind, _), (named, _) in zip(missing, left, strict=False):
        table[kind, named] += 1
    table.update((kind, "nothing") for kind, _ in missing[len(left) :])
    table.update(("nothing", kind) for kind, _ in left[len(missing) :])
    wrong = (
        [f"planted {missing or 'no more'}, named {left or 'no more'}"] if missing or left else []
    )
    wrong += [remark for remark in report.remarks if remark.startswith("Looking for")]
    return "; ".join(wrong)


def confusion(table: Counter) -> Table:
    """Rows: what was planted. Columns: what was named."""
    kinds = sorted({kind for pair in table for kind in pair})
    shown = Table("planted", *kinds, title="Causes: planted (rows) and named (columns)")
    for planted in kinds:
        shown.add_row(planted, *(str(table[planted, named] or "") for named in kinds))
    return shown
