"""`GradientMonitor`: training watched through its per-sample gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_pergrad import _keras
from keras_pergrad.callbacks._board import Board
from keras_pergrad.callbacks._measured import Measured, expect_whole
from keras_pergrad.callbacks._remarks import CHANGES, Remarks
from keras_pergrad.diagnostics import (
    ALIGNMENTS,
    Journal,
    Probe,
    diagnostics_of,
    expect_names,
)
from keras_pergrad.engines import DEFAULT_MEMORY_BUDGET, Engine, expect_memory_budget
from keras_pergrad.errors import PerGradError
from keras_pergrad.models import start_monitoring, stop_monitoring
from keras_pergrad.scores import How, MeanGradient

SHOWN = ("grad_norm_median", "grad_norm_max", "grad_noise_scale", "grad_coherence", "grad_cosine")


class GradientMonitor(keras.callbacks.Callback, Measured):
    """Measures the per-sample gradients of a training, and leaves the training as it is.

    One line added to `fit`. Every `every`-th step the norms of the samples' gradients, and at
    higher levels their inner products, become the numbers of *Watching training* in the
    documentation: in `logs`, and so in the progress bar, `History`, CSVLogger, TensorBoard and
    `EarlyStopping(monitor="grad_noise_scale", mode="max")`; in `records`, one for each measured
    step; and in a table of the rows of the data that stand out. An epoch's number is made of the
    terms of all its measured steps, NaN for none: a ratio is one of means.

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
        unweighted: whether a sample's weight is taken out of its gradient and its loss again, which
            otherwise are what the optimizer sees; where that can be done, and else a warning says
            why not. One of weight 0 has no gradient. Without `grad_gsnr`.
        engine: whose sample gradients, as in `per_sample_gradients`.
        memory_budget: bytes that one chunk of samples may need.

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
        unweighted: bool = False,
        engine: str | Engine = "auto",
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
    ):
        super().__init__()
        expect_whole(every=every, top_k=top_k, max_ids=max_ids)
        expect_memory_budget(memory_budget)
        if clip_norm is not None and not (isinstance(clip_norm, int | float) and clip_norm > 0):
            raise PerGradError(f"`clip_norm` is a positive number. Received: {clip_norm!r}.")
        self.level, self.every = level, every
        self.diagnostics = diagnostics_of(level, clip_norm)
        self.scalars = self._names(scalars)
        self._engine, self._memory_budget = engine, memory_budget
        self._unweighted = unweighted
        self._kinds = ("layer", "variable") if by_variable else ("layer",)
        self._journal = Journal(self.diagnostics, top_k, max_ids, jsonl)
        self._board, self._remarks = Board(log_dir), Remarks()
        self._validation = None
        if validation is not None:
            self._validation = MeanGradient(validation, How(engine, memory_budget=memory_budget))
        self._logs = dict.fromkeys(self.scalars, float("nan"))
        self._started = self._running = self._measured = False
        self.probe = self._new_probe()

    # --- Keras' callback ---

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self.probe, self._started, self._running = self._new_probe(), False, False
        self._logs = dict.fromkeys(self.scalars, float("nan"))
        self._journal.begin()
        start_monitoring(model, self)

    def on_train_begin(self, logs: Any = None) -> None:
        self._running = True

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._journal.begin_epoch(epoch)
        self._logs = dict.fromkeys(self.scalars, float("nan"))
        self._measured = False
        if self._validation is not None:
            gradient = self._validation.of(self.model)
            self.probe.prepare(self.model)
            self.probe.refer_to(gradient)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not self._measured:
            self._remarks.on_nothing(epoch, self.every)
        if self.level != "norms":
            change = self._journal.of_epoch(CHANGES)
            self._remarks.on_epoch(epoch, change, self._journal.steps_of_epoch)
        if self.records:
            self._board.epoch(self.records[-1].step, self.outliers(), self.dashboard)

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
            step = _keras.steps_taken(model.optimizer)
            self.probe.start_at(step)
            self._journal.go_on_from(step)
            self._remarks.on_accumulation(model.optimizer, self.every, self.level)

    def after_call(self, model: keras.Model, logs: Any) -> Any:
        steps = self.probe.take()
        self._measured |= bool(steps)
        if self.probe.lost_beyond is not None:
            self._measured = True
            self._remarks.on_no_room(self.probe.lost_beyond)
        steps = self._remarks.without_skipped(steps, model.optimizer)
        if steps:
            self._remarks.on_weights(self.probe.weights_stay)
            made = self._journal.take_in(steps, self.probe)
            for step, condensed in zip(steps, made, strict=True):
                self._board.step(step, condensed, self.scalars)
                self._remarks.on(condensed, self._journal.samples)
            self._logs = self._journal.of_epoch(self.scalars)
        return {**logs, **self._logs} if isinstance(logs, dict) else logs

    def _new_probe(self) -> Probe:
        wanted = frozenset().union(*(each.needs for each in self.diagnostics))
        wanted |= frozenset() if self._validation is None else {ALIGNMENTS}
        return Probe(
            wanted,
            self.every,
            self._engine,
            self._memory_budget,
            kinds=self._kinds,
            unweighted=self._unweighted,
        )

    def _names(self, scalars: Sequence[str] | str | None) -> list[str]:
        known = [name for each in self.diagnostics for name in each.names]
        if scalars == "all":
            return known
        if scalars is None:
            return [name for name in SHOWN if name in known]
        several = isinstance(scalars, Iterable) and not isinstance(scalars, str)
        names: list[Any] = list(scalars) if several else [scalars]
        expect_names(names, known)
        return names
