"""Pictures have the numbers that were recorded, and leave matplotlib's global state alone."""

import itertools
import sys

import numpy as np
import pytest
from keras import layers

import keras_pergrad as pg
from keras_pergrad import plots
from keras_pergrad.diagnostics import EDGES
from keras_pergrad.plots._names import short_names, shortened
from keras_pergrad.plots._windows import layers_of, mean_terms, noise_terms, windows
from tests.processes import run_code
from tests.recorded import records, row

PICTURES = [plots.norms, plots.noise_scale, plots.snr, plots.cosines, plots.outliers]
ALL = [*PICTURES, plots.dashboard]


def _drawn(figure) -> None:
    """Draws it as a file would be: what cannot be laid out warns, and a warning is an error."""
    figure.canvas.draw()


def _line(axes, label):
    (found,) = [line for line in axes.lines if line.get_label() == label]
    return found


@pytest.mark.parametrize(
    ("label", "name"), [("median", "median"), ("95 %", "p95"), ("largest", "max")]
)
@pytest.mark.parametrize("group", ["model", "net/second"])
def test_norms_are_those_recorded(label, name, group):
    found = records(500)
    line = _line(plots.norms(found, group).axes[0], label)
    np.testing.assert_array_equal(line.get_xdata(), [each.step for each in found])
    of = [each.values if group == "model" else each.groups[group] for each in found]
    np.testing.assert_array_equal(line.get_ydata(), [each[f"grad_norm_{name}"] for each in of])


@pytest.mark.parametrize("count", [1, 7, 150])
def test_the_noise_scale_is_that_of_each_window(count):
    from keras_pergrad.diagnostics import noise_scale

    found = records(count)
    line = _line(plots.noise_scale(found, window=5).axes[0], "noise scale")
    wanted = [noise_scale(found[max(0, k - 5) : k]).value for k in range(1, count + 1)]
    np.testing.assert_array_equal(line.get_ydata(), wanted)
    np.testing.assert_array_equal(line.get_xdata(), [each.step for each in found])


def test_the_progress_at_the_noise_scale_is_a_half():
    found = records(4, signal=0.25)
    curve = plots.noise_scale(found).axes[1].lines[0]
    scale = pg.diagnostics.noise_scale(found).value
    at = np.interp(np.log(scale), np.log(curve.get_xdata()), curve.get_ydata())
    assert at == pytest.approx(50, abs=0.05)  # the curve is drawn in 200 pieces


def test_where_noise_dominates_there_is_no_noise_scale_and_the_picture_says_so():
    figure = plots.noise_scale(records(20, signal=-0.5))
    left, right = figure.axes
    assert np.isnan(_line(left, "noise scale").get_ydata()).all()
    assert "noise dominates" in left.get_title("left")
    assert "cannot be told" in right.get_title("left")
    assert any("noise dominates" in text.get_text() for text in right.texts)
    _drawn(figure)


def test_the_map_has_ratios_of_means_and_short_names():
    found = records(30)
    axes = plots.snr(found, window=4).axes[0]
    assert [each.get_text() for each in axes.get_yticklabels()] == ["first", "second"]
    shown = axes.collections[1].get_array()
    terms = np.array([each.noise["net/second"] for each in found])
    trace, signal = terms[10:14].mean(axis=0)
    assert shown[1, 13] == pytest.approx(signal / trace, rel=1e-9)


def test_the_map_tells_noise_from_what_is_not_known():
    found = records(3, ("a", "b", "c"))
    for each in found:
        each.noise["b"][1] = -1.0
        each.noise["c"] = [np.nan, np.nan]
    figure = plots.snr(found)
    dominated, shown = (each.get_array() for each in figure.axes[0].collections)
    np.testing.assert_array_equal(np.ma.getmaskarray(dominated)[:, -1], [True, False, True])
    np.testing.assert_array_equal(np.ma.getmaskarray(shown)[:, -1], [False, True, True])
    (legend,) = figure.legends
    assert [each.get_text() for each in legend.get_texts()] == ["noise dominates", "not known"]
    _drawn(figure)


def test_cosines_are_added_up():
    found = records(20)
    axes = plots.cosines(found).axes[0]
    counts = np.sum([each.histograms["grad_cosine"] for each in found], axis=0)
    heights = [bar.get_height() for bar in axes.patches if hasattr(bar, "get_height")]
    np.testing.assert_allclose(heights[: len(counts)], 100 * counts / counts.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "pictured"), [((28, 28), 1), ((28, 28, 1), 1), ((9, 9, 3), 1), ((784,), 0)]
)
def test_outliers_are_shown_by_their_ids_where_they_are_images(shape, pictured):
    x = np.random.default_rng(0).integers(0, 255, (10, *shape), dtype=np.uint8)
    axes = plots.outliers([row(3), row(7)], x).axes[0]
    words = [each.get_text() for each in axes.texts]
    assert {"id", "3", "7", "2.5"} <= set(words) and "of update" not in words
    assert len(axes.child_axes) == 2 * pictured
    for inset, k in zip(axes.child_axes, (3, 7), strict=False):
        pixels = x[k].reshape(shape if shape[-1] == 3 else shape[:2]).astype(float)
        wanted = (pixels - pixels.min()) / (pixels.max() - pixels.min())
        np.testing.assert_allclose(inset.images[0].get_array(), wanted)


def test_outliers_are_found_by_their_fingerprints():
    x = np.random.default_rng(0).normal(size=(10, 8, 8)).astype("float32")
    ids = [int(each) for each in pg.rows.fingerprints(x[4:5])]
    axes = plots.outliers([row(ids[0]), row(2**61)], x).axes[0]
    (inset,) = axes.child_axes
    np.testing.assert_allclose(inset.images[0].get_array() * np.ptp(x[4]) + x[4].min(), x[4], 1e-5)


def test_rows_come_from_records_too():
    found = records(20)
    words = [each.get_text() for each in plots.outliers(found, top=1).axes[0].texts]
    assert str(max((r for each in found for r in each.rows), key=lambda r: r.z).id) in words


DEEP = tuple(f"vae/encoder/block_{k}_of_many_dense_layers" for k in range(60))


@pytest.mark.parametrize("picture", ALL, ids=lambda each: each.__name__)
@pytest.mark.parametrize("count", [1, 2, 20, 500])
def test_pictures_of_any_length_are_laid_out(picture, count):
    _drawn(picture(records(count)))


@pytest.mark.parametrize("names", [DEEP, DEEP[:1]], ids=["60 layers", "1 layer"])
def test_pictures_of_any_depth_are_laid_out(names):
    _drawn(plots.snr(records(3, names)))
    _drawn(plots.dashboard(records(3, names)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_numbers_that_no_logarithm_has_are_laid_out(value):
    found = records(3)
    for each in found:
        each.values.update(dict.fromkeys(each.values, value))
        each.noise.update({name: [value, value] for name in each.noise})
    for picture in (plots.norms, plots.noise_scale, plots.snr, plots.dashboard):
        _drawn(picture(found))


def test_names_do_not_overlap():
    figure = plots.snr(records(3, DEEP))
    _drawn(figure)
    boxes = [each.get_window_extent() for each in figure.axes[0].get_yticklabels()]
    for upper, lower in itertools.pairwise(boxes):
        assert upper.y0 >= lower.y1 - 1  # a pixel of what is above and below all letters


def test_a_dashboard_leaves_out_what_was_not_measured():
    whole, norms = plots.dashboard(records(20)), plots.dashboard(records(20, level="norms"))
    titles = [axes.get_title("left") for axes in norms.axes]
    assert len(whole.axes) == len(norms.axes) + 1
    assert not any("against the mean" in title for title in titles)


@pytest.mark.parametrize("picture", ALL, ids=lambda each: each.__name__)
def test_nothing_measured_is_said(picture):
    with pytest.raises(pg.PerGradError, match=r"Nothing was measured yet.*Received: 0 r"):
        picture([])
    with pytest.raises(pg.PerGradError, match=r"Nothing was measured yet.*Received: 0 r"):
        picture(pg.callbacks.GradientMonitor())


@pytest.mark.parametrize("picture", ALL, ids=lambda each: each.__name__)
@pytest.mark.parametrize("source", ["records.jsonl", 3, [1]], ids=str)
def test_what_is_no_record_is_refused(picture, source):
    with pytest.raises(pg.PerGradError, match=r"A picture is made of .* Received: (str|int)\.$"):
        picture(source)


@pytest.mark.parametrize("picture", [plots.norms, plots.noise_scale])
def test_a_layer_that_does_not_exist_is_refused_with_the_nearest(picture):
    with pytest.raises(pg.PerGradError, match=r"Did you mean 'net/first'.*Received: 'net/frist'"):
        picture(records(2), "net/frist")


@pytest.mark.parametrize("window", [0, 2.5, True])
@pytest.mark.parametrize("picture", [plots.noise_scale, plots.snr, plots.dashboard])
def test_a_window_of_nothing_is_refused(picture, window):
    with pytest.raises(pg.PerGradError, match=f"Received: window={window}"):
        picture(records(2), window=window)


def test_cosines_that_were_not_measured_are_refused_with_the_level():
    with pytest.raises(pg.PerGradError, match=r'level="standard".*Received: 2 records without'):
        plots.cosines(records(2, level="norms"))


def test_inputs_that_are_no_arrays_are_refused():
    with pytest.raises(pg.DataError, match=r"one row a sample. Received: x=int"):
        plots.outliers([row(1)], 3)


# Keras imports pyplot where there is one; taken away, nobody else can.
NO_STATE = """
import io, sys
import keras_pergrad as pg
import matplotlib
from matplotlib import pyplot
from tests.recorded import records
before = dict(matplotlib.rcParams)
sys.modules["matplotlib.pyplot"] = None
pg.plots.dashboard(records(20)).savefig(io.BytesIO())
assert dict(matplotlib.rcParams) == before
assert pyplot.get_fignums() == []
"""

NOT_NEEDED = """
import sys
sys.modules["matplotlib"] = None
import keras_pergrad as pg
from tests.recorded import records
try:
    pg.plots.norms(records(2))
except pg.MissingExtraError as error:
    assert 'pip install "keras_pergrad[plots]"' in str(error), error
else:
    raise AssertionError("drawn without matplotlib")
"""


@pytest.mark.thinned(2)
@pytest.mark.subprocess
@pytest.mark.parametrize("code", [NO_STATE, NOT_NEEDED], ids=["pyplot", "none"])
def test_pyplot_is_left_alone_and_matplotlib_not_needed(code):
    done = run_code(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("picture", ALL, ids=lambda each: each.__name__)
def test_a_missing_matplotlib_is_said_with_what_installs_it(picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(pg.MissingExtraError) as caught:
        picture(records(2))
    assert isinstance(caught.value, ImportError) and isinstance(caught.value, pg.PerGradError)
    assert 'pip install "keras_pergrad[plots]". Received: ' in str(caught.value)


def test_names_lose_what_they_share_and_keep_their_ends():
    assert short_names(["a/b/c", "a/b/d/e"]) == ["c", "d/e"]
    assert short_names(["a/b"]) == ["b"]
    assert short_names(["a", "a/b"]) == ["a", "a/b"]
    assert len(shortened("x" * 99)) == 28
    ends = [f"{'x' * 40}{k}{'y' * 40}" for k in range(2)]
    assert short_names(ends) == ends  # cut, they would be one name


@pytest.mark.parametrize(("count", "window"), [(1, 5), (50, 5), (1000, 7)])
def test_windows_end_with_the_first_and_the_last_record(count, window):
    looks = windows(count, window)
    assert looks[0].stop == 1 and looks[-1].stop == count and len(looks) == min(count, 200)
    assert all(look.stop - look.start == min(window, look.stop) for look in looks)
    terms = noise_terms(records(count), "model")
    wanted = [terms[look].mean(axis=0) for look in looks]
    np.testing.assert_allclose(mean_terms(terms, looks), wanted, rtol=1e-9)


def test_single_weights_are_no_layers():
    names = ("a", "b", "a/kernel", "a/bias", "b/kernel")
    assert layers_of(records(1, names)) == ["a", "b"]
    assert layers_of(records(1, ("block", "dense"))) == ["block", "dense"]


@pytest.mark.parametrize("level", ["norms", "standard"])
def test_a_monitor_draws_what_it_measured(level):
    model = pg.PerGradSequential([layers.Input((8, 8)), layers.Flatten(), layers.Dense(2)])
    model.compile("sgd", "mse")
    monitor = pg.callbacks.GradientMonitor(level, every=1)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 8, 8)).astype("float32"), rng.normal(size=(24, 2))
    model.fit(**pg.with_ids(x, y), batch_size=8, verbose=0, callbacks=[monitor])
    figure = monitor.dashboard(x)
    line = _line(figure.axes[0], "median")
    wanted = [each.values["grad_norm_median"] for each in monitor.records]
    np.testing.assert_array_equal(line.get_ydata(), wanted)
    _drawn(figure)
    for record in monitor.records:
        assert sum(record.histograms["log_norm"]) == record.size
        assert ("grad_cosine" in record.histograms) == (level == "standard")
        assert pg.Record.from_json(record.to_json()).histograms == record.histograms


def test_counted_cosines_have_the_mean_that_was_measured():
    model = pg.PerGradSequential([layers.Input((5,)), layers.Dense(3)])
    model.compile("sgd", "mse")
    monitor = pg.callbacks.GradientMonitor("standard", every=1)
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(64, 5)), rng.normal(size=(64, 3)), batch_size=32, verbose=0,
              callbacks=[monitor])  # fmt: skip
    edges = EDGES["grad_cosine"]
    for record in monitor.records:
        counts = np.array(record.histograms["grad_cosine"])
        mean = (counts * (edges[1:] + edges[:-1]) / 2).sum() / counts.sum()
        # Each cosine is within half a bin of the middle of its bin.
        assert mean == pytest.approx(record.values["grad_cosine"], abs=1 / 41)


def test_a_notebook_shows_a_picture():
    """By its own PNG: a bare figure is shown as text where pyplot was never loaded."""
    values = {"grad_norm_median": 1.0, "grad_norm_p95": 2.0, "grad_norm_max": 3.0}
    figure = pg.plots.norms([pg.Record(0, 0, 8, 0.1, values)])
    assert figure._repr_png_().startswith(b"\x89PNG")
