"""One rule per kind of operation: from what met there, and the gradient there, to a factor."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_pergrad.gradients import Factor
from keras_pergrad.sites._site import Site
from keras_pergrad.sites.rules._convolution import (
    called_convolution,
    convolution,
    depthwise_convolution,
)
from keras_pergrad.sites.rules._each import each
from keras_pergrad.sites.rules._elementwise import (
    addition,
    broadcast,
    division,
    multiplication,
    subtraction,
)
from keras_pergrad.sites.rules._lookup import lookup
from keras_pergrad.sites.rules._product import batched_matrix_product, matrix_product

Rule = Callable[[Site, tf.Tensor], Factor | None]

# A rule answers None where its operation is used in a way that it does not cover.
RULES: dict[str, Rule] = {
    "Add": addition,
    "AddV2": addition,
    "BatchMatMulV2": batched_matrix_product,
    "BiasAdd": addition,
    "BroadcastTo": broadcast,
    "Conv2D": convolution,
    "Conv2DBackpropInput": convolution,
    "DepthwiseConv2dNative": depthwise_convolution,
    "GatherV2": lookup,
    "MatMul": matrix_product,
    "Mul": multiplication,
    "PartitionedCall": called_convolution,
    "RealDiv": division,
    "StatefulPartitionedCall": called_convolution,
    "Sub": subtraction,
    "Tile": broadcast,
}


def apply_rule(site: Site, gradient: tf.Tensor) -> Factor:
    """The sample gradients of what met the samples at a site.

    Args:
        site: the site.
        gradient: of the loss with respect to the site's output, in its shape.

    Raises:
        NoSiteError: there is no rule, and the operation cannot be run sample by sample.
    """
    rule = RULES.get(site.operation.type)
    factor = None if rule is None else rule(site, gradient)
    return each(site, gradient) if factor is None else factor
