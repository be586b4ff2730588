"""The HTML report: one file with everything in it, which a browser sorts and searches."""

import html.parser
import re
import sys

import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from keras_pergrad.diagnostics import by_epoch
from keras_pergrad.plots._page import Table, page
from tests import browser
from tests.recorded import records, row

X = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)


class Reader(html.parser.HTMLParser):
    """Tags with their attributes, the words of tables, and whether what is opened is closed."""

    EMPTY = {"meta", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.tables = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and set(self.open) & {"td", "th"}:
            self.tables[-1][-1][-1] += data

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return pg.plots.report(records(40), tmp_path_factory.mktemp("r") / "new" / "report.html", X)


@pytest.fixture(scope="module")
def read(written):
    return Reader(written.read_text("utf-8"))


def test_the_file_needs_nothing_outside_of_it(written, read):
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", written.read_text("utf-8"))
    assert "//" not in re.sub(r"^\s*// .*$|  // .*$", "", text, flags=re.MULTILINE)
    assert not re.search(r"url\(|@import|fetch\(|http(?!-equiv)", text)
    for tag in ("img", "a"):
        for attrs in read.of(tag):
            assert (attrs.get("src") or attrs["href"]).startswith(("data:image/", "#part"))
    assert not read.of("link") and all("src" not in attrs for attrs in read.of("script"))
    (policy,) = (each for each in read.of("meta") if "http-equiv" in each)
    assert policy["content"].startswith("default-src 'none'")


def test_what_is_seen_is_said_to_those_who_cannot_see_it(read):
    assert read.of("html") == [{"lang": "en"}]
    assert all(attrs["alt"] for attrs in read.of("img"))
    assert "The median norm fell" in read.of("img")[0]["alt"]
    assert {attrs["scope"] for attrs in read.of("th")} == {"col", "row"}
    assert all(attrs["type"] in ("button", "search") for attrs in read.of("button"))


def test_links_lead_to_parts(read):
    ids = [attrs["id"] for attrs in read.of("section")]
    assert [attrs["href"] for attrs in read.of("a")] == [f"#{each}" for each in ids]
    assert len(ids) == 7  # four pictures, three tables


def test_tables_have_what_was_recorded(read):
    found = records(40)
    epochs, of_layers, outliers = read.tables
    values = by_epoch(found)
    assert [line[0] for line in epochs[1:]] == [str(each) for each in values]
    column = epochs[0].index("grad_norm_max")
    wanted = max(each.values["grad_norm_max"] for each in found if each.epoch == 0)
    assert epochs[1][column] == f"{wanted:.4g}"
    assert [line[0] for line in of_layers[1:]] == ["net/first", "net/second"]
    assert len(outliers) == 1 + 32 and outliers[1][0] == "39"


def test_an_epoch_has_the_numbers_that_training_logged():
    model = pg.PerGradSequential([layers.Input((5,)), layers.Dense(3)])
    model.compile("sgd", "mse")
    monitor = pg.callbacks.GradientMonitor("standard", every=2, clip_norm=1.0, scalars="all")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 5)), rng.normal(size=(64, 3))
    history = model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[monitor]).history
    for epoch, values in by_epoch(monitor.records).items():
        assert set(values) == set(history) - {"loss"}
        for name, value in values.items():
            np.testing.assert_array_equal(value, history[name][epoch], err_msg=name)


def test_a_monitor_writes_its_report(tmp_path):
    model = pg.PerGradSequential([layers.Input((8, 8)), layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", "mse")
    monitor = pg.callbacks.GradientMonitor(every=1)
    x, y = X.astype("float32") / 255, np.zeros((40, 2))
    model.fit(**pg.with_ids(x, y), batch_size=8, verbose=0, callbacks=[monitor])
    read = Reader(monitor.report(tmp_path / "report.html", x).read_text("utf-8"))
    ids = [line[0] for line in read.tables[-1][1:]]
    assert ids == [str(each.id) for each in monitor.outliers()]
    assert {f"sample {each}" for each in ids} <= {attrs["alt"] for attrs in read.of("img")}


def test_names_are_words_and_never_tags(tmp_path):
    bad = "</td><script>alert('x')</script>&amp;\"onload=\"1"
    found = records(3, (bad, "b"))
    found[0].rows[:] = [row(0, layer=bad)]
    path = pg.plots.report(found, tmp_path / "report.html")
    read = Reader(path.read_text("utf-8"))
    assert len(read.of("script")) == 1 and read.tables[1][1][0] == bad


@pytest.mark.parametrize(
    "found", [records(1, (), level="norms"), records(1, level="norms")], ids=["bare", "norms"]
)
def test_what_was_not_measured_is_left_out(found, tmp_path):
    found[0].rows.clear()
    read = Reader(pg.plots.report(found, tmp_path / "report.html").read_text("utf-8"))
    assert len(read.of("img")) == 2 + bool(found[0].groups)
    assert len(read.tables) == 1 + bool(found[0].groups)


def test_nothing_measured_writes_nothing(tmp_path):
    with pytest.raises(pg.PerGradError, match="Nothing was measured yet"):
        pg.plots.report([], tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_missing_matplotlib_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(pg.MissingExtraError, match=r"pip install .keras_pergrad\[plots\]"):
        pg.plots.report(records(2), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


# --- in a browser ---


@pytest.fixture(scope="module")
def in_browser():
    reason = browser.why_not()
    if reason is not None:
        pytest.skip(reason)
    return browser.visit


def _column(table: str, k: int) -> str:
    """A script that reads the shown cells of a column."""
    rows = f"[...document.querySelector('{table}').tBodies[0].rows].filter((r) => r.offsetHeight)"
    return f"{rows}.map((r) => r.cells[{k}].textContent)"


HEADS = "[...document.querySelectorAll('#{} th[scope=col]')].map((h) => h.ariaSort)"


def _button(table: str, k: int) -> dict:
    return {"click": f"#{table} th:nth-child({k + 1}) button"}


@pytest.mark.subprocess
def test_a_click_on_a_head_sorts_and_another_turns_it_around(in_browser, written):
    ids = _column("#table6", 0)
    click = _button("table6", 0)
    heads = HEADS.format("table6")
    steps = [ids, click, ids, heads, click, ids, heads, _button("table6", 5), heads]
    first, _, down, sorted_down, _, up, sorted_up, _, other = in_browser(written, steps)
    assert sorted(down, key=int, reverse=True) == down and up == down[::-1]
    assert sorted(first) == sorted(down) and len(first) == 32
    assert sorted_down[0] == "descending" and sorted_up[0] == "ascending"
    assert [k for k, each in enumerate(other) if each] == [5]


@pytest.mark.subprocess
def test_words_are_searched(in_browser, written):
    ids, told = _column("#table6", 0), "document.querySelector('#part6 output').textContent"
    steps = [told, {"click": "#part6 input"}, {"type": "NET/first 39"}, ids, told]
    before, _, _, shown, after = in_browser(written, steps)
    assert before == "32 of 32 rows" and "39" in shown and len(shown) < 32
    assert after == f"{len(shown)} of 32 rows"


@pytest.mark.subprocess
def test_numbers_sort_as_numbers_words_as_words_and_what_is_not_known_last(in_browser, tmp_path):
    numbers = [9.0, 10.0, float("nan"), -1e-9, float("inf")]
    words = ["b", "a", "c", "<d>", "1e"]
    rows = [list(each) for each in zip(words, numbers, strict=True)]
    path = tmp_path / "page.html"
    table = Table("T", "about", ["word", "number"], rows, frozenset({"word"}))
    path.write_text(page("T", [], [table]), "utf-8")
    by_number, by_word = _button("table0", 1), _button("table0", 0)
    cells, names = _column("#table0", 1), _column("#table0", 0)
    steps = [by_number, cells, by_number, cells, by_word, names]
    _, down, _, up, _, alphabet = in_browser(path, steps)
    assert down == ["∞", "10", "9", "-1e-09", "–"]
    assert up == ["-1e-09", "9", "10", "∞", "–"]
    assert alphabet[-3:] == ["a", "b", "c"]


@pytest.mark.subprocess
def test_a_browser_shows_all_pictures_and_loads_nothing(in_browser, written):
    images = "[...document.images].map((i) => i.complete && i.naturalWidth > 0)"
    loaded = "performance.getEntriesByType('resource').map((e) => e.name.slice(0, 5))"
    wide = "document.documentElement.scrollWidth <= window.innerWidth"
    shown, names, fits = in_browser(written, [images, loaded, wide])
    assert len(shown) == 4 + 32 and all(shown)
    assert set(names) <= {"data:"} and fits
