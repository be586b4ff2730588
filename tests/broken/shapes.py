"""Shapes that are stretched against each other."""

from keras import ops

from tests.broken.base import SIZE, Broken, numbers, own_loss

SHAPES: dict[str, Broken] = {
    "rank 1 against rank 2": Broken(
        own_loss(lambda y, p: ops.mean((y[:, 0] - p) ** 2), units=1),
        numbers(5),
        (("broadcast", "compute_loss"),),
    ),
    "weights along time": Broken(
        own_loss(
            lambda y, p: ops.mean(
                ops.mean((y - p) ** 2, axis=-1, keepdims=True)
                * ops.ones((1, SIZE))
                * ops.cast(ops.abs(y[:, 0]), p.dtype)
            )
        ),
        numbers(5),
        (("broadcast", "compute_loss"),),
    ),
}
