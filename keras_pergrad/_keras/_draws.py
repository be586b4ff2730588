"""Random tensors: the operations that all noise comes from, and how each is asked about.

Keras and `tf.random` draw through the generated wrappers of TensorFlow's random operations, looked
up in their module at each call, so that one replacement serves both.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import (
    gen_random_ops,
    gen_stateful_random_ops,
    gen_stateless_random_ops,
    gen_stateless_random_ops_v2,
)

RANDOM_OPERATIONS = {
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


@dataclass(frozen=True)
class Draw:
    """A random tensor that is about to be drawn.

    Attributes:
        drawn: draws it.
        shape: the shape that was asked for.
        arguments: the operation's argument names, with their values.
    """

    drawn: Callable[[], tf.Tensor]
    shape: tf.Tensor
    arguments: dict[str, Any]


DrawHook = Callable[[Draw], tf.Tensor]


def listened_draw(operation: Callable, hook: Callable[[], DrawHook | None]) -> Callable:
    """The random operation, which leaves the answer to `hook()` where there is one."""
    signature = inspect.signature(operation)

    @functools.wraps(operation)
    def wrapper(*args, **kwargs):
        answer = hook()
        if answer is None:
            return operation(*args, **kwargs)
        arguments = signature.bind(*args, **kwargs).arguments
        shape = _requested_shape(operation.__name__, arguments)
        return answer(Draw(lambda: operation(*args, **kwargs), shape, arguments))

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
