"""The settings of `compile(per_sample=...)`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import keras

from keras_pergrad.aggregators import get_aggregator
from keras_pergrad.engines import DEFAULT_MEMORY_BUDGET, expect_memory_budget, get_engine
from keras_pergrad.equivalence import expect_rtol
from keras_pergrad.errors import PerGradError

OnFailure = Literal["raise", "warn", "record"]
BatchNorm = Literal["share", "frozen", "error"]


@keras.saving.register_keras_serializable("keras_pergrad")
@dataclass(frozen=True)
class EquivalenceCheck:
    """How often `fit` checks, and what happens when a check fails.

    Attributes:
        every: `0` never, `n` every n-th training step beginning with the first, `"first"` only the
            step after `compile` that can be judged.
        on_failure: `"raise"` an `EquivalenceError`, `"warn"`, or only `"record"` the report.
        rtol: the relative tolerance; None for that of the dtype computed in.
    """

    every: int | Literal["first"] = "first"
    on_failure: OnFailure = "raise"
    rtol: float | None = None

    def __post_init__(self):
        every = self.every
        if every != "first" and not (_is_whole(every) and every >= 0):
            raise PerGradError(
                "`every` is 'first' or a whole number of steps, 0 for never. "
                f"Received: every={every!r}."
            )
        if self.on_failure not in ("raise", "warn", "record"):
            raise PerGradError(
                "`on_failure` is 'raise', 'warn' or 'record'. "
                f"Received: on_failure={self.on_failure!r}."
            )
        expect_rtol(self.rtol)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EquivalenceCheck:
        """The settings that `get_config` came from."""
        return cls(**config)


@keras.saving.register_keras_serializable("keras_pergrad")
@dataclass(frozen=True)
class PerSample:
    """What a model does with sample gradients in its training step.

    Attributes:
        engine: `"auto"`, which is `"factored"`; `"vectorized"`, `"jacobian"` or `"loop"`.
        check: `"first"`, `"always"`, `"off"`, a number of steps, or an `EquivalenceCheck`.
        on_failure: `"raise"`, `"warn"` or `"record"`; an `EquivalenceCheck` brings its own.
        aggregator: None applies the batch gradient and leaves training alone; `"mean"` applies the
            mean of the sample gradients, plus the batch term. With `check="off"` that mean is
            verified in every step, and a step in which it is not the batch gradient fails.
        memory_budget: bytes that one chunk of samples may need.
        batch_norm: what a training step does with BatchNormalization layers that are not frozen.
            `"share"`: they use the statistics of the batch, as Keras trains them, so that sample
            gradients are shares and a check fails with that cause; `"frozen"`: they use their
            moving statistics and leave them as they are, in training, too, so that sample gradients
            are exact; `"error"`: the model is refused.
    """

    engine: str = "auto"
    check: Any = "first"
    on_failure: OnFailure = "raise"
    aggregator: str | None = None
    memory_budget: int = DEFAULT_MEMORY_BUDGET
    batch_norm: BatchNorm = "share"

    def __post_init__(self):
        if self.batch_norm not in ("share", "frozen", "error"):
            raise PerGradError(
                "`batch_norm` is 'share', 'frozen' or 'error'. "
                f"Received: batch_norm={self.batch_norm!r}."
            )
        get_engine(self.engine)
        get_aggregator(self.aggregator)
        expect_memory_budget(self.memory_budget)
        self.equivalence_check()

    def equivalence_check(self) -> EquivalenceCheck:
        """`check` and `on_failure` as one `EquivalenceCheck`."""
        if isinstance(self.check, EquivalenceCheck):
            return self.check
        every = self.check
        if isinstance(every, str):
            every = {"off": 0, "always": 1}.get(every, every)
        if every != "first" and not (_is_whole(every) and every >= 0):
            raise PerGradError(
                "`check` is 'off', 'first', 'always', a number of steps or an EquivalenceCheck. "
                f"Received: check={self.check!r}."
            )
        return EquivalenceCheck(every, self.on_failure)

    @classmethod
    def of(cls, value: Any) -> PerSample | None:
        """The settings that `compile(per_sample=value)` means; None for plain Keras."""
        if value is None or value is False:
            return None
        if value is True:
            return cls()
        if isinstance(value, str):
            return cls(engine=value)
        if isinstance(value, cls):
            return value
        raise PerGradError(
            "`per_sample` is None, True, the name of an engine or a PerSample. "
            f"Received: per_sample={value!r}."
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving.

        Raises:
            PerGradError: the engine is an object of the user's own, which has no name to save.
        """
        config = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if not isinstance(self.engine, str):
            raise PerGradError(
                "Settings with an engine object cannot be saved; name the engine instead. "
                f"Received: engine={self.engine!r}."
            )
        config["check"] = keras.saving.serialize_keras_object(self.check)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PerSample:
        """The settings that `get_config` came from."""
        check = keras.saving.deserialize_keras_object(config["check"])
        return cls(**{**config, "check": check})


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
