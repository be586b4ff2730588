"""What layers give to `add_loss`."""

from keras import ops

from tests.broken.base import ADDED, LOSS, Broken, numbers, penalized

TERMS: dict[str, Broken] = {
    "vector given to add_loss": Broken(
        penalized(lambda x: ops.sum(x**2, axis=1)), numbers(5), ((ADDED, "penalty"),)
    ),
    "sum given to add_loss": Broken(
        penalized(lambda x: ops.sum(x**2)), numbers(5), ((ADDED, "penalty"),)
    ),
    "norm of the batch given to add_loss": Broken(
        penalized(lambda x: ops.norm(x)), numbers(5), ((LOSS, "penalty"),)
    ),
}
