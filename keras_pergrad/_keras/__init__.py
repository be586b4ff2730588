"""Every touch of private Keras and TensorFlow: one file for each part of them that is touched.

Written against Keras 3.15 and TensorFlow 2.21. Nothing else in the package imports `keras.src` or
`tensorflow.python`, or reads an underscore attribute of a Keras object.
"""

from keras_pergrad._keras._building import (
    build_for,
    build_for_training,
    build_loss,
    build_optimizer,
)
from keras_pergrad._keras._calls import CallHook, calls_through, training_told, within_call
from keras_pergrad._keras._classes import (
    Functional,
    functional_init_arguments,
    is_initialized,
    is_keras_own,
)
from keras_pergrad._keras._converters import (
    converters_replaced,
    looped,
    stacked,
    standard_converter,
)
from keras_pergrad._keras._datasets import has_batches, transformations
from keras_pergrad._keras._draws import Draw
from keras_pergrad._keras._dtypes import computing_in_float64
from keras_pergrad._keras._freed import (
    emptied,
    forget_custom_gradients,
    graphs_freed_with,
    never_freed,
)
from keras_pergrad._keras._graphs import (
    anonymous_name,
    apart_if,
    called_function,
    compiled,
    depending_on,
    may_be_read,
    readings,
    replica_id,
    run_as_traced,
    static_shape,
    traced_once,
    under_xla,
    variables_read_past,
)
from keras_pergrad._keras._layers import FLAGS, frozen_weights, layers_of, stop_rematerializing
from keras_pergrad._keras._packed import (
    SYMBOLIC_BUILD,
    BuiltFromPlainBatches,
    build_from_plain_batches,
)
from keras_pergrad._keras._reductions import Reduction, scale_for_replicas
from keras_pergrad._keras._sandboxed import sandbox
from keras_pergrad._keras._seams import intercept, reductions_by, writes_remembered
from keras_pergrad._keras._seeds import (
    far_seed,
    global_seed_made,
    global_seed_state,
    seeds_kept,
    skip_seeds,
)
from keras_pergrad._keras._tensors import cut, mask_of, with_logits, with_mask
from keras_pergrad._keras._trainer import (
    CompiledLoss,
    added_losses,
    compiled_losses,
    compute_loss,
    forward,
    layers_that_added,
    loss_given,
    loss_objects,
    losses_of,
    losses_replaced,
    output_names,
    steps_taken,
    track_loss,
)

__all__ = [
    "FLAGS",
    "SYMBOLIC_BUILD",
    "BuiltFromPlainBatches",
    "CallHook",
    "CompiledLoss",
    "Draw",
    "Functional",
    "Reduction",
    "added_losses",
    "anonymous_name",
    "apart_if",
    "build_for",
    "build_for_training",
    "build_from_plain_batches",
    "build_loss",
    "build_optimizer",
    "called_function",
    "calls_through",
    "compiled",
    "compiled_losses",
    "compute_loss",
    "computing_in_float64",
    "converters_replaced",
    "cut",
    "depending_on",
    "emptied",
    "far_seed",
    "forget_custom_gradients",
    "forward",
    "frozen_weights",
    "functional_init_arguments",
    "global_seed_made",
    "global_seed_state",
    "graphs_freed_with",
    "has_batches",
    "intercept",
    "is_initialized",
    "is_keras_own",
    "layers_of",
    "layers_that_added",
    "looped",
    "loss_given",
    "loss_objects",
    "losses_of",
    "losses_replaced",
    "mask_of",
    "may_be_read",
    "never_freed",
    "output_names",
    "readings",
    "reductions_by",
    "replica_id",
    "run_as_traced",
    "sandbox",
    "scale_for_replicas",
    "seeds_kept",
    "skip_seeds",
    "stacked",
    "standard_converter",
    "static_shape",
    "steps_taken",
    "stop_rematerializing",
    "traced_once",
    "track_loss",
    "training_told",
    "transformations",
    "under_xla",
    "variables_read_past",
    "with_logits",
    "with_mask",
    "within_call",
    "writes_remembered",
]
