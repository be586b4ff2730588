"""`GradientMonitor`: training watched through its per-sample gradients."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_pergrad import _keras, plots
from keras_pergrad.callbacks._board import Board
from keras_pergrad.diagnostics import (
    ALIGNMENTS,
    Monitor,
    NoiseScaleEstimate,
    OutlierRow,
    OutlierTable,
    Probe,
    Record,
    RecordFile,
    SampleSums,
    Scores,
    Summary,
    Window,
    diagnostics_of,
    expect_names,
    noise_scale,
)
from keras_pergrad.engines import DEFAULT_MEMORY_BUDGET, Engine
from keras_pergrad.errors import PerGradError, PerGradWarning
from keras_pergrad.models import start_monitoring, stop_monitoring
from keras_pergrad.scores import How, MeanGradient

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEPT = 10_000  # records in memory; a file has them all
SHOWN = ("grad_norm_median", "grad_norm_max", "grad_noise_scale", "grad_coherence", "grad_cosine")


class GradientMonitor(keras.callbacks.Callback, Monitor):
    """Measures the per-sample gradients of a training, and leaves the training as it is.

    One line added to `fit`. Every `every`-th step the norms of the samples' gradients, and at
    higher levels their inner products, become the numbers of *Watching training* in the
    documentation: in `logs`, and so in the progress bar, `History`, CSVLogger, TensorBoard and
    `EarlyStopping(monitor="grad_noise_scale")`; in `records`, one for each measured step; and in a
    table of the rows of the data that stand out. An epoch's number is made of the terms of all its
    measured steps: a ratio is one of means.

    Guarantees: weights, optimizer, seeds, statistics, metrics and their history are, bit by bit,
    those of a training without it. Steps that are not measured cost nothing but a comparison.

    Args:
        level: `"norms"`, `"standard"`, which adds inner products with the mean gradient, or
            `"full"`, which adds what takes all pairs of samples.
        every: how many steps from one measured to the next.
        top_k: how many rows the outlier table has.
        scalars: names of the numbers in `logs`; `"all"`, or a short list by default.
        jsonl: a file to which each record is appended as a line; training that was interrupted goes
            on from it.
        log_dir: a directory for TensorBoard.
        clip_norm: a norm `C`, for `clip_fraction`: the share of samples above it.
        by_variable: whether records have each weight's numbers, beside each layer's.
        validation: `(x, y)` or a dataset, whose mean gradient at the beginning of each epoch the
            rows of `samples()` are aligned with.
        max_ids: how many rows `samples()` has at most, of up to 170 bytes each.
        engine: whose sample gradients, as in `per_sample_gradients`.
        memory_budget: bytes that one chunk of samples may need.

    Attributes:
        records: the measured steps, the last 10,000 of them.

    Raises:
        PerGradError: a setting that does not exist.

    Example:
        >>> import keras, numpy as np, keras_pergrad as pg
        >>> model = pg.PerGradSequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> monitor = pg.callbacks.GradientMonitor(every=1)
        >>> x, y = np.random.normal(size=(8, 3)), np.zeros((8, 1))
        >>> history = model.fit(x, y, verbose=0, callbacks=[monitor])
        >>> "grad_noise_scale" in history.history, monitor.records[0].size
        (True, 8)
    """

    def __init__(
        self,
        level: str = "norms",
        every: int = 50,
        top_k: int = 32,
        *,
        scalars: Sequence[str] | str | None = None,
        jsonl: str | os.PathLike | None = None,
        log_dir: str | os.PathLike | None = None,
        clip_norm: float | None = None,
        by_variable: bool = False,
        validation: Any = None,
        max_ids: int = 1_000_000,
        engine: str | Engine = "auto",
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
    ):
        super().__init__()
        _expect_whole(every=every, top_k=top_k, max_ids=max_ids)
        self.level, self.every, self.top_k = level, every, top_k
        self.diagnostics = diagnostics_of(level, clip_norm)
        self.scalars = self._names(scalars)
        self.records: deque[Record] = deque(maxlen=KEPT)
        self._engine, self._memory_budget = engine, memory_budget
        self._kinds = ("layer", "variable") if by_variable else ("layer",)
        self._file = RecordFile(jsonl)
        self._board = Board(log_dir)
        self._table = OutlierTable(top_k)
        self._samples = SampleSums(max_ids)
        self._validation = None
        if validation is not None:
            self._validation = MeanGradient(validation, How(engine, memory_budget=memory_budget))
        self._window = Window(self.diagnostics)
        self._summary: Summary | None = None
        self._logs = dict.fromkeys(self.scalars, float("nan"))
        self._epoch, self._started, self._running = 0, False, False
        self._said: set[str] = set()
        self.probe = self._new_probe()

    # --- what was measured ---

    def outliers(self) -> list[OutlierRow]:
        """The rows of the data that stood out most, the worst first: at most `top_k`."""
        return self._table.rows

    def samples(self) -> Scores:
        """What was added up for each row over the measured steps, in the order they came first.

        `"count"` of its steps, means `"norm"` and `"loss"`, `"self_influence"` `Σ lr ‖g_i‖²` and,
        with `validation`, `"alignment"` `Σ lr ⟨g_i, g_val⟩`: to first order, `B` times what the
        row's part of the updates took off the validation loss; a mislabelled row adds to it. Not
        kept in files: it is of what this callback saw.
        """
        return self._samples.table

    def noise_scale(self, group: str = "model", last: int | None = None) -> NoiseScaleEstimate:
        """The noise scale over the measured steps, with its interval and what follows from it.

        Args:
            group: `"model"`, or a layer.
            last: how many of the last records; all by default.
        """
        records = list(self.records)
        return noise_scale(records if last is None else records[-last:], group)

    def dashboard(self, x: Any = None) -> Figure:
        """All pictures of `pg.plots` in one matplotlib figure, not shown.

        Args:
            x: the inputs as given to `fit`, to show outliers where they are images.
        """
        return plots.dashboard(self, x)

    def report(self, path: str | os.PathLike, x: Any = None) -> Path:
        """Writes the pictures and tables into one HTML file, which needs nothing but a browser.

        Args:
            path: of the file.
            x: the inputs as given to `fit`, to show outliers where they are images.
        """
        return plots.report(self, path, x)

    # --- Keras' callback ---

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.probe, self._summary, self._started = self._new_probe(), None, False
        self._running, self._logs = False, dict.fromkeys(self.scalars, float("nan"))
        start_monitoring(model, self)

    def on_train_begin(self, logs: Any = None) -> None:
        self._running = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._window = Window(self.diagnostics)
        if self._validation is not None:
            gradient = self._validation.of(self.model)
            self.probe.prepare(self.model)
            self.probe.refer_to(gradient)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.records:
            self._board.epoch(self.records[-1].step, self.outliers(), None)

    def on_train_end(self, logs: Any = None) -> None:
        self._running = False
        self._board.close()
        stop_monitoring(self.model, self)

    def on_test_begin(self, logs: Any = None) -> None:
        if not self._running:
            stop_monitoring(self.model, self)

    def on_predict_begin(self, logs: Any = None) -> None:
        self.on_test_begin()

    # --- the measured model's monitor ---

    @property
    def is_left(self) -> bool:
        return self._running

    def before_call(self, model: keras.Model) -> None:
        if not self._started:
            self._started = True
            self._go_on_from(_keras.steps_taken(model.optimizer))

    def after_call(self, model: keras.Model, logs: Any) -> Any:
        steps = self.probe.take()
        if steps:
            if self._summary is None:
                self._summary = self._new_summary()
            made = [self._summary.record(step, self._epoch, self._table) for step in steps]
            for step, record in zip(steps, made, strict=True):
                self._samples.add(step)
                self._window.add(record)
                self._board.step(step, record, self.scalars)
                self._say(record)
            self.records.extend(made)
            self._file.append(made)
            self._logs = self._of_epoch(self._summary)
        return {**logs, **self._logs} if isinstance(logs, dict) else logs

    def _go_on_from(self, step: int) -> None:
        """Starts counting where the optimizer is, after what a file has of the steps before."""
        self.probe.start_at(step)
        if self._file.path is not None:
            self.records.clear()
            self._table = OutlierTable(self.top_k)
        for record in self._file.before(step):
            self.records.append(record)
            self._table.put(record.rows)
            if record.epoch == self._epoch:
                self._window.add(record)

    def _of_epoch(self, summary: Summary) -> dict[str, float]:
        values = summary.values(self._window.terms)
        return {name: values[name] for name in self.scalars}

    def _new_probe(self) -> Probe:
        wanted = frozenset().union(*(each.needs for each in self.diagnostics))
        wanted |= frozenset() if self._validation is None else {ALIGNMENTS}
        return Probe(wanted, self.every, self._engine, self._memory_budget)

    def _new_summary(self) -> Summary:
        return Summary(self.diagnostics, self.probe.paths, self.probe.parameters, self._kinds)

    def _names(self, scalars: Sequence[str] | str | None) -> list[str]:
        known = [name for each in self.diagnostics for name in each.names]
        if scalars == "all":
            return known
        if scalars is None:
            return [name for name in SHOWN if name in known]
        names = [scalars] if isinstance(scalars, str) else list(scalars)
        expect_names(names, known)
        return names

    def _say(self, record: Record) -> None:
        """Warns, once each, of what makes numbers NaN."""
        if record.size < 2:
            self._once("A batch of one tells nothing of noise: its noise scale is NaN.", record)
        if record.non_finite:
            self._once(
                "Some samples have NaN or Inf in their gradients. Norms are of the others; what "
                "takes the mean gradient is NaN, and left out of the epoch's numbers. They are "
                f"rows {record.non_finite[:5]}.",
                record,
            )
        if not record.known and not record.non_finite:
            self._once(
                "The samples' contributions cannot be told apart in this loss; what is measured "
                "are parts that do not add up to the update. `check_equivalence` says why.",
                record,
            )

        if self._samples.left_out:
            self._once(
                "There are more rows than `samples()` has room for; those that come now are left "
                f"out. Give a larger `max_ids` than {self._samples.max_ids}, or rows ids.",
                record,
            )

    def _once(self, text: str, record: Record) -> None:
        key = text[:30]
        if key not in self._said:
            self._said.add(key)
            received = f"Received: step {record.step} with {record.size} samples."
            warnings.warn(f"{text} {received}", PerGradWarning, stacklevel=2)


def _expect_whole(**numbers: Any) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise PerGradError(
                f"`{name}` is a whole number of at least 1. Received: {name}={value!r}."
            )
