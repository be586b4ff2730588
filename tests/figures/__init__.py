"""The figures of the scoreboard, one small function each."""

from tests.figures._figure import Figure
from tests.figures.causes import causes_named
from tests.figures.comparisons import layer_comparisons, random_architectures
from tests.figures.faults import faults_told
from tests.figures.layers import layer_configurations, random_layers
from tests.figures.memory import memory_budget, memory_corruption
from tests.figures.power import power_of_the_check
from tests.figures.replicas import two_replicas
from tests.figures.training import long_run, observer_effect, partial_batches
from tests.figures.watched import (
    long_run_with_a_monitor,
    observer_effect_of_a_monitor,
    stopped_and_resumed,
    two_replicas_with_a_monitor,
)

# With an M: the same with a monitor.
FIGURES = {
    "R1": layer_comparisons,
    "R2": layer_configurations,
    "R3": random_architectures,
    "R4": power_of_the_check,
    "R5": causes_named,
    "R6": observer_effect,
    "R7": faults_told,
    "R8": random_layers,
    "R9": long_run,
    "R11": partial_batches,
    "R12": two_replicas,
    "R13": memory_budget,
    "R16": memory_corruption,
    "M6": observer_effect_of_a_monitor,
    "M9": long_run_with_a_monitor,
    "M10": stopped_and_resumed,
    "M12": two_replicas_with_a_monitor,
}

__all__ = ["FIGURES", "Figure"]
