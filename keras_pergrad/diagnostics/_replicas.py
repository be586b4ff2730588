"""What replicas measure of one step, put together."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from keras_pergrad.diagnostics._primitives import OF_MEAN, OF_REPLICAS, Gradient
from keras_pergrad.diagnostics._step import MeasuredStep
from keras_pergrad.diagnostics._unweighted import Unweighted
from keras_pergrad.gradients import SampleGradients


def mean_of_replicas(g: SampleGradients | Unweighted) -> Gradient:
    """The mean over the samples of all replicas."""
    context = tf.distribute.get_replica_context()
    size, means = tf.cast(g.num_samples, tf.float64), g.means()
    # Replicas add up numbers of one dtype together.
    sums = [size * tf.cast(mean, tf.float64) for mean in means]
    count, *total = context.all_reduce(tf.distribute.ReduceOp.SUM, [size, *sums])
    found = [each / tf.maximum(count, 1) for each in total]
    return [tf.cast(each, mean.dtype) for each, mean in zip(found, means, strict=True)]


def joined_parts(parts: list[MeasuredStep], *, several: bool) -> MeasuredStep:
    """The parts of one step; NaN for what each of several replicas knows of its samples alone."""
    first = parts[0]
    of_step = dict(first.of_step)
    for name, numbers in first.of_step.items():
        if name in OF_REPLICAS:
            of_step[name] = np.sum([part.of_step[name] for part in parts], axis=0)
        elif several and name not in OF_MEAN:  # of one replica's samples alone
            of_step[name] = np.full_like(numbers, np.nan)
    return MeasuredStep(
        first.step,
        first.learning_rate,
        all(part.known for part in parts),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.losses for part in parts]),
        np.concatenate([part.weights for part in parts]),
        {n: np.concatenate([part.samples[n] for part in parts]) for n in first.samples},
        of_step,
    )
