"""`SampleGradients`: what every engine answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import tensorflow as tf

from keras_pergrad.errors import PerGradError
from keras_pergrad.gradients._blocks import Block, Blocks, Total
from keras_pergrad.gradients._summary import table_of, written_out

By = Literal["model", "layer", "variable"]


class SampleGradients:
    """The gradients of the `B` samples of a batch, of which only what is asked for is computed.

    Notation: `g_i` is the gradient of sample `i` in all `P` weights, never scaled by `1/B`.

    Guarantees: `mean() + batch_term` is the batch gradient wherever the loss separates, for
    contributions. What is written out sample by sample fits the memory budget, unless
    `materialize` is called; `engine="factored"` has no budget for `gram` and `second_moment`.

    Edge cases: for `B = 0` the arrays are `[0, ...]` and the mean is zero. A sample with a NaN
    leaves the other rows exact, except for `engine="jacobian"`: there every row is a derivative of
    the whole batch's run, and zero times NaN is NaN.

    Attributes:
        variables: paths of the weights, in `trainable_variables` order.
        batch_term: the gradient of the terms that no sample owns (regularizers), a list of tensors
            as `variables`.
        unconnected: path → reason of the weights that the loss does not depend on.
        remarks: what else a person should know, as that samples interact.
    """

    def __init__(
        self,
        blocks: Blocks,
        variables: Sequence[str],
        batch_term: list[tf.Tensor],
        unconnected: dict[str, str],
        remarks: Sequence[str] = (),
    ):
        self.blocks = blocks
        self.variables = list(variables)
        self.batch_term = batch_term
        self.unconnected = unconnected
        self.remarks = list(remarks)

    @property
    def num_samples(self) -> int | tf.Tensor:
        """The number `B` of samples, a Python number where it is known, else a scalar tensor."""
        return self.blocks.size

    @property
    def losses(self) -> tf.Tensor:
        """The losses of the samples, `[B]`."""
        return self.blocks.each(lambda block: block.losses)

    def sum(self, weights: tf.Tensor | None = None) -> list[tf.Tensor]:
        """`Σ_i w_i g_i`, one tensor a variable; `weights [B]`, ones by default.

        Raises:
            PerGradError: not one weight a sample.
        """
        if weights is None and self.blocks.expected is not None:
            return self.blocks.expected.sums()  # the tape has it already
        if weights is None:
            return self.blocks.total(lambda block: [f.weighted_sum(None) for f in block.factors])
        weights = tf.convert_to_tensor(weights)
        self._expect_one_a_sample(weights)
        return self.blocks.total(lambda block: _weighted(block, tf.gather(weights, block.indices)))

    def mean(self) -> list[tf.Tensor]:
        """`(1/B) Σ_i g_i`, one tensor a variable in its dtype; zero for an empty batch."""
        total = self.blocks.expected or Total(self.sum(), self.num_samples, are_means=False)
        found = total.means()
        return [tf.cast(m, r.dtype) for m, r in zip(found, self.batch_term, strict=True)]

    def squared_norms(self, by: By = "model") -> tf.Tensor | dict[str, tf.Tensor]:
        """`‖g_i‖²`, `[B]`, in all weights, or by variable or layer: `{path: [B]}`.

        Raises:
            PerGradError: an unknown `by`.
        """
        norms = self.blocks.each(_squared_norms)
        if by == "model":
            return tf.reduce_sum(norms, axis=1)
        groups = self._groups(by)
        return {
            name: tf.reduce_sum(tf.gather(norms, columns, axis=1), axis=1)
            for name, columns in groups.items()
        }

    def norms(self, by: By = "model") -> tf.Tensor | dict[str, tf.Tensor]:
        """`‖g_i‖`, as `squared_norms`."""
        return tf.nest.map_structure(tf.sqrt, self.squared_norms(by))

    def dot(self, vectors: Sequence[tf.Tensor]) -> tf.Tensor:
        """`⟨g_i, v⟩`, `[B]`, for one gradient `v`: a list of tensors as `variables`.

        Raises:
            PerGradError: another number of tensors, or other shapes.
        """
        vectors = [tf.convert_to_tensor(vector) for vector in vectors]
        expected, found = ([tuple(t.shape) for t in ts] for ts in (self.batch_term, vectors))
        if found != expected:
            raise PerGradError(
                "`dot` needs one tensor a variable in its shape, as `mean()` gives them. "
                f"Expected: {expected}. Received: {found}."
            )
        return self.blocks.each(lambda block: _dot(block, vectors))

    def gram(self) -> tf.Tensor:
        """`⟨g_i, g_j⟩`, `[B, B]`."""
        return self.blocks.each(lambda block: tf.transpose(self._against(block)))

    def second_moment(self) -> list[tf.Tensor]:
        """`(1/B) Σ_i g_i∘g_i`, elementwise, one tensor a variable."""
        count = tf.maximum(self.num_samples, 1)
        sums = self.blocks.total(lambda block: [f.sum_of_squares() for f in block.factors])
        return [total / tf.cast(count, total.dtype) for total in sums]

    def materialize(self) -> dict[str, tf.Tensor]:
        """The gradients themselves, `{path: [B, *weight.shape]}`: `B×P` numbers."""
        return {
            path: self.blocks.each(_materialized(k, self.batch_term[k].dtype))
            for k, path in enumerate(self.variables)
        }

    def summary(self) -> str:
        """A table: each weight, where it meets samples, the form its gradients are held in."""
        held = self.blocks.held
        held = written_out(self.batch_term) if held is None else held
        table = table_of(self.variables, held, self.unconnected)
        return "\n".join([table, f"Together: {self.blocks}.", *self.remarks])

    def _expect_one_a_sample(self, weights: tf.Tensor) -> None:
        sizes = weights.shape.as_list()
        known = isinstance(self.num_samples, int) and None not in sizes
        if len(sizes) != 1 or (known and sizes != [self.num_samples]):
            raise PerGradError(
                "`sum` takes one weight a sample. "
                f"Expected: shape ({self.num_samples},). Received: shape {weights.shape}."
            )

    def _groups(self, by: str) -> dict[str, list[int]]:
        if by not in ("variable", "layer"):
            raise PerGradError(f"`by` is 'model', 'layer' or 'variable'. Received: by={by!r}.")
        groups: dict[str, list[int]] = {}
        for k, path in enumerate(self.variables):
            name = path if by == "variable" else path.rpartition("/")[0]
            groups.setdefault(name, []).append(k)
        return groups

    def _against(self, block: Block) -> tf.Tensor:
        """Inner products of all samples with those of `block`, `[B, b]`."""

        def inner(other: Block) -> tf.Tensor:
            pairs = zip(other.factors, block.factors, strict=True)
            return tf.add_n(_of_one_dtype([mine.gram(theirs) for mine, theirs in pairs]))

        return self.blocks.each(inner)


def _squared_norms(block: Block) -> tf.Tensor:
    """`[b, V]`."""
    return tf.stack(_of_one_dtype([factor.squared_norms() for factor in block.factors]), axis=1)


def _of_one_dtype(values: list[tf.Tensor]) -> list[tf.Tensor]:
    widest = tf.float64 if any(each.dtype == tf.float64 for each in values) else tf.float32
    return [tf.cast(each, widest) for each in values]


def _materialized(k: int, dtype: tf.DType) -> Callable[[Block], tf.Tensor]:
    return lambda block: tf.cast(block.factors[k].materialize(), dtype)


def _weighted(block: Block, weights: tf.Tensor) -> list[tf.Tensor]:
    return [factor.weighted_sum(weights) for factor in block.factors]


def _dot(block: Block, vectors: list[tf.Tensor]) -> tf.Tensor:
    pairs = zip(block.factors, vectors, strict=True)
    return tf.add_n(_of_one_dtype([factor.dot(vector) for factor, vector in pairs]))
