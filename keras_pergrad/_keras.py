"""Every touch of private Keras and TensorFlow, with the reason and the version it was read in.

Written against Keras 3.15 and TensorFlow 2.21. Nothing else in the package imports `keras.src` or
`tensorflow.python`, or reads an underscore attribute of a Keras object.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import inspect
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import compute_output_spec, get_keras_mask, set_keras_mask
from keras.src.backend.common.global_state import get_global_attribute, set_global_attribute
from keras.src.losses import loss as keras_loss
from keras.src.models.functional import Functional
from keras.src.models.model import functional_init_arguments
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from keras.src.utils.traceback_utils import filter_traceback
from tensorflow.python.eager import context as tf_context
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function
from tensorflow.python.framework.tensor_util import constant_value_as_shape
from tensorflow.python.ops import (
    control_flow_util,
    custom_gradient,
    gen_random_ops,
    gen_stateful_random_ops,
    gen_stateless_random_ops,
    gen_stateless_random_ops_v2,
)
from tensorflow.python.ops.parallel_for import pfor

from keras_pergrad.errors import UnsupportedError

__all__ = ["Functional", "filter_traceback", "functional_init_arguments"]

Hook = Callable[..., Any]


# --- Seams: where a run can be listened to, or told what to answer -------------------------------
#
# Keras and `tf.random` draw all their noise through the generated wrappers of TensorFlow's random
# operations, looked up in their module at each call; every `keras.losses.Loss` reduces through
# `reduce_weighted_values`. Each is replaced once, at the first use of `intercept`, by a function
# that asks this thread's innermost hook and otherwise does what it did. In a sandbox, functions
# with a memory of their own and custom gradients are seen to as well.

_DRAWS = {
    gen_random_ops: (
        "multinomial",
        "parameterized_truncated_normal",
        "random_gamma",
        "random_poisson_v2",
        "random_standard_normal",
        "random_uniform",
        "random_uniform_int",
        "truncated_normal",
    ),
    gen_stateless_random_ops: (
        "stateless_multinomial",
        "stateless_parameterized_truncated_normal",
        "stateless_random_binomial",
        "stateless_random_gamma_v2",
        "stateless_random_normal",
        "stateless_random_poisson",
        "stateless_random_uniform",
        "stateless_random_uniform_full_int",
        "stateless_random_uniform_int",
        "stateless_truncated_normal",
    ),
    gen_stateless_random_ops_v2: (
        "stateless_random_gamma_v3",
        "stateless_random_normal_v2",
        "stateless_random_uniform_full_int_v2",
        "stateless_random_uniform_int_v2",
        "stateless_random_uniform_v2",
        "stateless_truncated_normal_v2",
    ),
    gen_stateful_random_ops: (
        "stateful_random_binomial",
        "stateful_standard_normal_v2",
        "stateful_truncated_normal",
        "stateful_uniform",
        "stateful_uniform_full_int",
        "stateful_uniform_int",
    ),
}

_active = threading.local()
_install_lock = threading.Lock()
_installed = False


@contextlib.contextmanager
def intercept(*, draw: Hook | None = None, reduce: Hook | None = None) -> Iterator[None]:
    """Asks `draw` for every random tensor, and `reduce` for every reduced loss, of this thread.

    Args:
        draw: `draw(original, shape, arguments)`: `original()` draws, `shape` is what was asked
            for, `arguments` maps the operation's argument names to their values.
        reduce: `reduce(original, values, sample_weight, mask, reduction, dtype)`.
    """
    _install()
    outer = getattr(_active, "hooks", {})
    _active.hooks = {"draw": draw, "reduce": reduce}
    try:
        yield
    finally:
        _active.hooks = outer


@contextlib.contextmanager
def reductions_by(reduce: Hook) -> Iterator[None]:
    """Asks `reduce` for every reduced loss, and whoever is asked already for random tensors."""
    with intercept(draw=_hook("draw"), reduce=reduce):
        yield


@contextlib.contextmanager
def writes_remembered() -> Iterator[dict[int, tuple[keras.Variable, tf.Tensor]]]:
    """Every variable that this thread assigns inside, by its id, with its value before."""
    _install()
    written: dict[int, tuple[keras.Variable, tf.Tensor]] = {}
    outer = getattr(_active, "written", ())
    _active.written = (*outer, written)
    try:
        yield written
    finally:
        _active.written = outer


def _sandbox() -> Any:
    """The sandbox that this thread runs in, or None."""
    scope = get_global_attribute("stateless_scope")
    return scope if getattr(scope, "is_sandbox", False) else None


def _hook(kind: str) -> Hook | None:
    return getattr(_active, "hooks", {}).get(kind)


def _install() -> None:
    global _installed
    with _install_lock:
        if _installed:
            return
        for module, names in _DRAWS.items():
            for name in names:
                setattr(module, name, _drawing(getattr(module, name)))
        keras_loss.reduce_weighted_values = _reducing(keras_loss.reduce_weighted_values)
        keras.Variable._direct_assign = _remembering(keras.Variable._direct_assign)
        Function.__call__ = _traced_afresh(Function.__call__)
        for name in ("_eager_mode_decorator", "_graph_mode_decorator"):
            setattr(custom_gradient, name, _guarded(getattr(custom_gradient, name)))
        _installed = True


def _remembering(original: Callable) -> Callable:
    @functools.wraps(original)
    def wrapper(self, value):
        for written in getattr(_active, "written", ()):
            if id(self) not in written:
                written[id(self)] = (self, tf.identity(tf.convert_to_tensor(self)))
        return original(self, value)

    return wrapper


def _traced_afresh(original: Callable) -> Callable:
    """In a sandbox, a user's `tf.function` is traced by itself, for this call alone.

    A cached trace would read the real variables; one made here would go on reading the sandbox's.
    """

    @functools.wraps(original)
    def wrapper(self, *args, **kwargs):
        function = self if _sandbox() is None else self._clone(None)
        return original(function, *args, **kwargs)

    return wrapper


def _guarded(original: Callable) -> Callable:
    """In a sandbox, weights are tensors, and a custom gradient would drop those it closes over."""

    @functools.wraps(original)
    def wrapper(f, args, kwargs):
        box = _sandbox()
        before = None if box is None else box.weights_read
        result = original(f, args, kwargs)
        if box is not None and box.weights_read != before:
            raise UnsupportedError(
                "A custom gradient (tf.custom_gradient, tf.recompute_grad) reads a weight of its "
                "own, which no per-sample gradient can flow through. Pass the weight to it as an "
                f"argument. Received: {getattr(f, '__qualname__', f)!r}."
            )
        return result

    return wrapper


def _drawing(operation: Callable) -> Callable:
    signature = inspect.signature(operation)

    @functools.wraps(operation)
    def wrapper(*args, **kwargs):
        hook = _hook("draw")
        if hook is None:
            return operation(*args, **kwargs)
        arguments = signature.bind(*args, **kwargs).arguments
        shape = _requested_shape(operation.__name__, arguments)
        return hook(lambda: operation(*args, **kwargs), shape, arguments)

    return wrapper


def _requested_shape(name: str, arguments: dict) -> tf.Tensor:
    if name.endswith("multinomial"):
        rows = tf.shape(arguments["logits"])[0]
        return tf.stack([rows, tf.cast(arguments["num_samples"], tf.int32)])
    shape = tf.cast(arguments["shape"], tf.int32)
    if name in ("random_gamma", "random_poisson_v2"):
        parameter = arguments.get("alpha", arguments.get("rate"))
        return tf.concat([shape, tf.shape(parameter)], axis=0)
    return shape


def _reducing(original: Callable) -> Callable:
    @functools.wraps(original)
    def wrapper(values, sample_weight=None, mask=None, reduction="sum_over_batch_size", dtype=None):
        hook = _hook("reduce")
        if hook is None:
            return original(values, sample_weight, mask, reduction, dtype)
        return hook(original, values, sample_weight, mask, reduction, dtype)

    return wrapper


def static_shape(shape: tf.Tensor) -> list[int | None]:
    """What tracing knows of the shape that a tensor holds."""
    known = tf.get_static_value(shape)
    if known is not None:
        return [int(size) for size in known]
    sizes = constant_value_as_shape(shape).as_list()
    if shape.op.type == "Pack":
        entries = [_static_size(entry) for entry in shape.op.inputs]
        sizes = [a if a is not None else b for a, b in zip(sizes, entries, strict=True)]
    return sizes


def _static_size(size: tf.Tensor) -> int | None:
    """One size of a shape: a constant, or an entry `tf.shape(x)[k]` of a known one."""
    known = tf.get_static_value(size)
    if known is not None:
        return int(known)
    if size.op.type != "StridedSlice":
        return None
    source, begin = size.op.inputs[0], tf.get_static_value(size.op.inputs[1])
    return None if begin is None else constant_value_as_shape(source).as_list()[int(begin[0])]


def merged_weights(values, sample_weight, mask, dtype):
    """The unreduced `values` and their weights (masks as 0 and 1), ranks matched as Keras does."""
    values = keras.ops.convert_to_tensor(values, dtype=dtype)
    if sample_weight is not None:
        sample_weight = keras.ops.convert_to_tensor(sample_weight, dtype=dtype)
    weights = keras_loss.apply_mask(sample_weight, mask, dtype=values.dtype, reduction="sum")
    if weights is None:
        return values, None
    return keras_loss.squeeze_or_expand_to_same_rank(values, keras.ops.cast(weights, values.dtype))


def scale_for_replicas(value: tf.Tensor) -> tf.Tensor:
    """`value` divided by the number of replicas, as Keras divides every mean loss."""
    return keras_loss.scale_loss_for_distribution(value)


# --- A model's forward pass and loss, as `Trainer.train_step` runs them --------------------------


def forward(model: keras.Model, x: Any, training: bool) -> Any:
    """Calls the model; passes `training` only where its `call` takes it."""
    return model(x, training=training) if model._call_has_training_arg else model(x)


def compute_loss(
    model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool
) -> tf.Tensor:
    """The user's scalar; allows a `compute_loss` without a `training` argument."""
    return model._compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
    )


def track_loss(model: keras.Model, loss: tf.Tensor, size: tf.Tensor) -> None:
    """Feeds the `loss` metric as `TensorFlowTrainer.train_step` does."""
    unscaled = keras_loss.unscale_loss_for_distribution(loss)
    model._loss_tracker.update_state(unscaled, sample_weight=size)


def has_loss(model: keras.Model) -> bool:
    """Whether `compute_loss` has something to compute before the model was called."""
    return model._compile_loss is not None or overrides(model, "compute_loss")


def loss_given(model: keras.Model) -> Any:
    """What `compile` was given as the loss, where Keras' own `compute_loss` uses it; or None."""
    if model._compile_loss is None or overrides(model, "compute_loss"):
        return None
    return model._compile_loss._user_loss


def is_initialized(model: keras.Model) -> bool:
    """Whether `keras.Model.__init__` has run."""
    return "_dtype_policy" in model.__dict__


def is_keras_own(cls: type) -> bool:
    """Whether a class is Keras' own, and not a user's."""
    return cls.__module__.startswith("keras.src")


def overrides(model: keras.Model, method: str) -> bool:
    """Whether the model's class has its own version of a method of `keras.Model`."""
    return getattr(type(model), method) is not getattr(keras.Model, method)


def build_for(model: keras.Model, x: Any, y: Any, sample_weight: Any) -> None:
    """Builds an unbuilt model, its loss and its metrics from the shapes of a batch."""
    model._symbolic_build(data_batch=(x, y, sample_weight))


def build_for_training(model: keras.Model, x: Any) -> None:
    """Builds the layers that only a training step runs, from the shapes of a batch."""
    if all(layer.built for layer in layers_of(model)) or not model._call_has_training_arg:
        return

    def spec(leaf):
        return None if leaf is None else keras.KerasTensor(leaf.shape, leaf.dtype.name)

    with contextlib.suppress(RuntimeError):  # a model that cannot be built so builds when it runs
        compute_output_spec(model, keras.tree.map_structure(spec, x), training=True)


def build_loss(model: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> None:
    """Builds what `compile(loss=...)` left to the first batch, from shapes alone."""
    if model._compile_loss is None or model._compile_loss.built:
        return

    def spec(leaf):
        return None if leaf is None else keras.KerasTensor(leaf.shape, leaf.dtype.name)

    x, y, y_pred, sample_weight = keras.tree.map_structure(spec, (x, y, y_pred, sample_weight))
    compute_output_spec(model._compute_loss, x, y, y_pred, sample_weight=sample_weight)


@contextlib.contextmanager
def losses_replaced(model: keras.Model, losses: list[tf.Tensor]) -> Iterator[None]:
    """Makes `model.losses` answer `losses`: the list that the JAX trainer fills, too."""
    outer = model._losses_override
    object.__setattr__(model, "_losses_override", list(losses))
    try:
        yield
    finally:
        object.__setattr__(model, "_losses_override", outer)


def added_losses(model: keras.Model) -> list[tf.Tensor]:
    """What the run in progress gave to `add_loss`, without the weights' regularizers."""
    return [loss for layer in layers_of(model) for loss in layer._get_own_losses()]


def layers_of(model: keras.Model) -> list[keras.Layer]:
    """The model and every layer in it, at any depth."""
    return list(model._flatten_layers())


def loss_objects(model: keras.Model) -> list[keras.Loss]:
    """The losses that `compile` resolved, one an output."""
    compiled = model._compile_loss
    if compiled is None:
        return []
    return [compiled, *(each.loss for each in compiled._flat_losses or [])]


def compiled(function: Callable) -> Any:
    """A `tf.function` that is meant to be traced once and thrown away.

    TensorFlow counts traces by the place in the source and would warn of "frequent retracing".
    """
    result = tf.function(function, reduce_retracing=True, autograph=False)
    result._omit_frequent_tracing_warning = True
    return result


def under_xla() -> bool:
    """Whether XLA compiles what is being traced, which knows every size when it does."""
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def number_of_losses(model: keras.Model) -> int:
    """How many losses `compile` was given, one an output."""
    return max(0, len(loss_objects(model)) - 1)


def mask_of(tensor: Any) -> Any:
    """The Keras mask that travels with a tensor, or None."""
    return get_keras_mask(tensor)


def with_mask(tensor: Any, mask: Any) -> Any:
    """`tensor`, carrying `mask`."""
    if mask is not None:
        set_keras_mask(tensor, mask)
    return tensor


def cut(tensor: Any, rows: Callable[[Any], Any]) -> Any:
    """`rows(tensor)`, with the same rows of what travels with a prediction.

    That is its mask, and the logits of a softmax or sigmoid, from which Keras' TensorFlow backend
    computes a cross-entropy in place of the probabilities.
    """
    row = with_mask(rows(tensor), None if mask_of(tensor) is None else rows(mask_of(tensor)))
    logits = getattr(tensor, "_keras_logits", None)
    if logits is not None:
        row._keras_logits = rows(logits)
    return row


def global_seed_state() -> list[keras.Variable]:
    """The state of Keras' global seed generator, which `seed=None` draws from, if it exists."""
    generator = get_global_attribute(GLOBAL_SEED_GENERATOR)
    return [] if generator is None else [generator.state]


@contextlib.contextmanager
def computing_in_float64(model: keras.Model) -> Iterator[None]:
    """Lets every layer and loss compute in float64, and puts their dtypes back.

    The variables stay what they are: runs inside read them from a scope of their own.
    """
    double = keras.DTypePolicy("float64")
    holders = [*layers_of(model), *loss_objects(model)]
    kept = [(holder, dict(holder.__dict__)) for holder in holders]
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        for holder in holders:
            holder.__dict__["_dtype_policy"] = double
            if isinstance(holder, keras.Loss):
                holder.__dict__["_dtype"] = "float64"
        yield
    finally:
        keras.config.set_floatx(floatx)
        for holder, attributes in kept:
            for name in ("_dtype_policy", "_dtype"):
                if name in attributes:
                    holder.__dict__[name] = attributes[name]


def replica_id() -> int:
    """Which replica is being traced; the public property is a tensor."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0
    return int(context._replica_id_in_sync_group)


# --- Layer state that lives outside variables ----------------------------------------------------


@contextlib.contextmanager
def attributes_kept(model: keras.Model) -> Iterator[None]:
    """Puts back every layer's attributes, what their containers hold, and all seeds.

    A `call` that stores a tensor on `self`, or fills `self.losses`, leaves nothing behind. Inside,
    layers do not rematerialize: the same numbers, without a custom gradient around the weights.
    """
    kept = [(layer, dict(layer.__dict__)) for layer in layers_of(model)]
    contents = [
        (container, container.copy())
        for _, attributes in kept
        for container in _containers(attributes.values())
    ]
    for layer, attributes in kept:
        if attributes.get("_remat_mode") is not None:
            layer.__dict__["_remat_mode"] = None
    try:
        with seeds_kept():
            yield
    finally:
        for layer, attributes in kept:
            _restore(layer.__dict__, attributes)
        for container, before in contents:
            _refill(container, before)


def _restore(attributes: dict[str, Any], before: dict[str, Any]) -> None:
    """Puts back what has changed, and nothing else: another thread may be reading."""
    for name in [name for name in attributes if name not in before]:
        del attributes[name]
    for name, value in before.items():
        if attributes.get(name) is not value:
            attributes[name] = value


def _containers(values: Iterable[Any], depth: int = 4) -> Iterator[Any]:
    """The lists, dicts and sets among values, and those inside them."""
    for value in values:
        if _is_plain_object(value):
            value = value.__dict__
        if isinstance(value, (list, dict, set, collections.deque)):
            yield value
        if isinstance(value, (list, dict, set, tuple, collections.deque)) and depth:
            inner = value.values() if isinstance(value, dict) else value
            yield from _containers(list(inner), depth - 1)


def _is_plain_object(value: Any) -> bool:
    """Whether it is a user's helper object: no class, no function, nothing of a library's."""
    libraries = ("keras", "tensorflow", "numpy", "builtins", "functools", "weakref", "threading")
    kind = type(value)
    return (
        hasattr(value, "__dict__")
        and not callable(value)
        and kind.__module__.partition(".")[0] not in libraries
        and not isinstance(value, (keras.Layer, keras.Variable, keras.Metric, tf.Module))
    )


def variables_read_past(graph: Any, variables: list[keras.Variable]) -> list[keras.Variable]:
    """The variables that a traced graph reads by their TensorFlow handle, past any Keras scope."""
    sources = {id(_outermost(tensor, graph)) for tensor in graph.external_captures}
    return [v for v in variables if id(getattr(v._value, "handle", None)) in sources]


def readings(
    operations: Sequence[tf.Operation], variables: list[keras.Variable]
) -> list[list[tf.Tensor]]:
    """Every tensor that a traced run has read each variable into, in the order of the trace.

    In a replica, those of its own copy.
    """
    found: dict[int, list[tf.Tensor]] = {}
    for operation in operations:
        if operation.type == "ReadVariableOp":
            source, graph = operation.inputs[0], operation.graph
            source = next((out for out, inner in graph.captures if inner is source), source)
            source = _outermost(source, graph)
            found.setdefault(id(source), []).append(operation.outputs[0])
    return [found.get(id(getattr(v._value, "handle", None)), []) for v in variables]


def _outermost(tensor: Any, graph: Any) -> Any:
    """What a captured tensor was before any surrounding graph captured it."""
    outer = graph.outer_graph
    while outer is not None and hasattr(outer, "captures"):
        tensor = next((outside for outside, inside in outer.captures if inside is tensor), tensor)
        outer = getattr(outer, "outer_graph", None)
    return tensor


def rows_of_attributes(
    model: keras.Model, before: list[tf.Tensor], size: Any, rows: Callable[[Any], Any]
) -> None:
    """Cuts what a forward pass has left on its layers: tensors with one row a sample.

    Args:
        model: the model, between its forward pass and its loss.
        before: what `tensors_held` answered before the forward pass.
        size: the number of samples, or None where it is unknown while tracing.
        rows: takes the rows of a tensor.
    """
    old = {id(tensor) for tensor in before}

    def row(value: Any) -> Any:
        is_batch = isinstance(value, tf.Tensor) and value.shape.rank and value.shape[0] == size
        return cut(value, rows) if is_batch and id(value) not in old else value

    for layer in layers_of(model):
        _replace_inside(layer.__dict__, row)


def tensors_held(model: keras.Model) -> list[tf.Tensor]:
    """The tensors that layers hold in attributes, and in containers among them."""
    held: list[tf.Tensor] = []

    def note(value: Any) -> Any:
        if isinstance(value, tf.Tensor):
            held.append(value)
        return value

    for layer in layers_of(model):
        _replace_inside(layer.__dict__, note)
    return held


def _replace_inside(
    attributes: dict[str, Any], replace: Callable[[Any], Any], depth: int = 4
) -> None:
    """Puts `replace(value)` in the place of every value, in containers and helpers as well."""
    for name, value in list(attributes.items()):
        new = _replaced(value, replace, depth)
        if new is not value:
            attributes[name] = new


def _replaced(value: Any, replace: Callable[[Any], Any], depth: int) -> Any:
    """`replace(value)`; containers keep their identity, but for tuples, which are made anew."""
    if not depth:
        return value
    if _is_plain_object(value):
        _replace_inside(value.__dict__, replace, depth - 1)
    elif isinstance(value, (list, collections.deque)):
        new: Any = [_replaced(each, replace, depth - 1) for each in value]
        if not _same(value, new):
            _refill(value, new)
    elif isinstance(value, dict):
        new = {key: _replaced(each, replace, depth - 1) for key, each in value.items()}
        if not _same(value, new):
            _refill(value, new)
    elif type(value) is tuple:
        new = tuple(_replaced(each, replace, depth - 1) for each in value)
        return value if _same(value, new) else new
    return replace(value)


def raw_variables(model: keras.Model) -> list[tf.Variable]:
    """The `tf.Variable`s that layers hold past Keras, those of `tf.random.Generator`s included."""
    found: dict[int, tf.Variable] = {}
    for layer in layers_of(model):
        attributes = list(layer.__dict__.values())
        for container in list(_containers(attributes)):
            attributes += container.values() if isinstance(container, dict) else container
        for value in attributes:
            value = value.state if isinstance(value, tf.random.Generator) else value
            if isinstance(value, tf.Variable):
                found[id(value)] = value
    return list(found.values())


@contextlib.contextmanager
def seeds_kept() -> Iterator[None]:
    """Puts back the states of all generators of seeds: Keras', TensorFlow's, Python's, NumPy's."""
    generator = get_global_attribute(GLOBAL_SEED_GENERATOR)
    eager = getattr(tf_context.context(), "_rng", None)  # what an eager `tf.random` draws seeds of
    states = random.getstate(), np.random.get_state(), eager and eager.getstate()
    try:
        yield
    finally:
        set_global_attribute(GLOBAL_SEED_GENERATOR, generator)
        random.setstate(states[0])
        np.random.set_state(states[1])
        if eager:
            eager.setstate(states[2])


def _refill(container: Any, before: Any) -> None:
    """Puts back what was in a container, if a run has changed it.

    Keras' tracked containers are refilled past their own methods, which would track again;
    TensorFlow's wrappers through theirs, behind which the contents lie.
    """
    if _same(container, before):
        return
    cls: Any = type(container)
    if cls.__module__.startswith("keras"):
        cls = next(base for base in (list, dict, set) if isinstance(container, base))
    cls.clear(container)
    add = cls.extend if isinstance(container, (list, collections.deque)) else cls.update
    add(container, before)


def _same(container: Any, before: Any) -> bool:
    if len(container) != len(before):
        return False
    if isinstance(container, dict):
        return all(key in container and container[key] is before[key] for key in before)
    return all(a is b for a, b in zip(container, before, strict=True))


def layers_that_write_weights(model: keras.Model) -> list[keras.Layer]:
    """Layers whose forward pass assigns their own trainable weights."""
    return [
        layer for layer in layers_of(model) if isinstance(layer, keras.layers.SpectralNormalization)
    ]


def recurrent_layers(model: keras.Model) -> list[keras.Layer]:
    """Every layer that steps through time, those wrapped by `Bidirectional` included."""
    return [layer for layer in layers_of(model) if isinstance(layer, keras.layers.RNN)]


def unroll_recurrent_layers(model: keras.Model) -> None:
    """Makes recurrent layers step unrolled, to be undone by `attributes_kept`.

    Unrolled while tracing, a recurrent layer is the same computation without a loop: what
    `tf.vectorized_map` (tensorflow issue 43904) and XLA need. Backward ones are turned round first.
    """
    for layer in recurrent_layers(model):
        layer.__dict__["unroll"] = True
        if layer.go_backwards:
            layer.__dict__["inner_loop"] = _reversed_first(layer, layer.inner_loop)


def _reversed_first(layer: keras.Layer, original: Callable) -> Callable:
    """A backward layer's loop as a forward one over reversed time.

    Keras 3.15 unrolls a backward layer with a mask wrongly: it zeroes the reversed outputs by the
    mask in its old order (`zero_output_for_mask`, which Bidirectional sets).
    """

    def inner_loop(sequences, initial_state, mask, training=False):
        layer.__dict__["go_backwards"] = False
        try:
            sequences = keras.ops.flip(sequences, axis=1)
            mask = None if mask is None else keras.ops.flip(mask, axis=1)
            return original(sequences, initial_state, mask, training=training)
        finally:
            layer.__dict__["go_backwards"] = True

    return inner_loop


# --- Converters of `tf.vectorized_map` -----------------------------------------------------------

_converters_lock = threading.RLock()
_standard_converters: dict[str, Callable] = {}


@contextlib.contextmanager
def converters_replaced(own: dict[str, Callable]) -> Iterator[None]:
    """Vectorizes the operations named in `own` with the converters given, in this scope alone.

    A converter is given the operation with its inputs, stacked or not, and returns the stacked
    output, wrapped by `stacked`.
    """
    registry = pfor._pfor_converter_registry
    with _converters_lock:
        before = {name: registry[name] for name in own}
        for name, converter in before.items():
            _standard_converters.setdefault(name, converter)
        registry.update(own)
        try:
            yield
        finally:
            registry.update(before)


def standard_converter(name: str, operation: Any) -> Any:
    """What TensorFlow's own converter answers."""
    return _standard_converters[name](operation)


def looped(operation: Any) -> Any:
    """The operation run once a sample, in a loop: slow and exact."""
    return pfor._fallback_converter(operation, warn=False)


def stacked(value: tf.Tensor) -> Any:
    """A converter's output, one entry a sample."""
    return pfor.wrap(value, True)
