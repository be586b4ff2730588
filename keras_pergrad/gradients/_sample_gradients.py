"""`SampleGradients`: what every engine answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import tensorflow as tf

from keras_pergrad.errors import PerGradError
from keras_pergrad.gradients import _answers
from keras_pergrad.gradients._blocks import Block, Blocks, Total
from keras_pergrad.gradients._summary import table_of, written_out

By = Literal["model", "layer", "variable"]


class SampleGradients:
    """The gradients of the `B` samples of a batch, of which only what is asked for is computed.

    Notation: `g_i` is the gradient of sample `i` in all `P` weights, never scaled by `1/B`.

    Guarantees: `mean() + batch_term` is the batch gradient wherever the loss separates, for
    contributions. What is written out sample by sample fits the memory budget, unless
    `materialize` is called.

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
            return self.blocks.expected.sums()
        if weights is not None:
            weights = tf.convert_to_tensor(weights)
            self._expect_one_a_sample(weights)
        return self.blocks.total(lambda block: _answers.sums(block, weights))

    def mean(self) -> list[tf.Tensor]:
        """`(1/B) Σ_i g_i`, one tensor a variable in its dtype; zero for an empty batch."""
        pairs = zip(self.means(), self.batch_term, strict=True)
        return [tf.cast(mean, term.dtype) for mean, term in pairs]

    def squared_norms(self, by: By = "model") -> tf.Tensor | dict[str, tf.Tensor]:
        """`‖g_i‖²`, `[B]`, in all weights, or by variable or layer: `{path: [B]}`.

        Raises:
            PerGradError: an unknown `by`.
        """
        return self._grouped(self.blocks.each(_answers.squared_norms), by)

    def norms(self, by: By = "model") -> tf.Tensor | dict[str, tf.Tensor]:
        """`‖g_i‖`, as `squared_norms`."""
        return tf.nest.map_structure(tf.sqrt, self.squared_norms(by))

    def dot(
        self, vectors: Sequence[tf.Tensor], by: By = "model"
    ) -> tf.Tensor | dict[str, tf.Tensor]:
        """`⟨g_i, v⟩`, `[B]`, for one gradient `v`: a list of tensors as `variables`.

        In all weights, or by variable or layer, as `squared_norms`.

        Raises:
            PerGradError: another number of tensors, or other shapes; an unknown `by`.
        """
        vectors = [tf.convert_to_tensor(vector) for vector in vectors]
        expected, found = ([tuple(t.shape) for t in ts] for ts in (self.batch_term, vectors))
        if found != expected:
            raise PerGradError(
                "`dot` needs one tensor a variable in its shape, as `mean()` gives them. "
                f"Expected: {expected}. Received: {found}."
            )
        return self._grouped(self.blocks.each(lambda block: _answers.dots(block, vectors)), by)

    def projections(self, by: By = "model") -> tf.Tensor | dict[str, tf.Tensor]:
        """`⟨g_i, ḡ⟩`, `[B]`, with the mean `ḡ` of the samples, as `dot(mean(), by)`; often cheaper.

        The mean of them is `‖ḡ‖²`. For few samples and a large weight, inner products with all
        samples take the place of the one with the mean.

        Raises:
            PerGradError: an unknown `by`.
        """
        means = self.means()
        return self._grouped(self.blocks.each(lambda b: _answers.projections(b, means)), by)

    def gram(self, by: By = "model") -> tf.Tensor | dict[str, tf.Tensor]:
        """`⟨g_i, g_j⟩`, `[B, B]`, in all weights, or by variable or layer, as `squared_norms`.

        Raises:
            PerGradError: an unknown `by`.
        """
        if by == "model":
            return self._against_all(_answers.inner)
        groups = self._groups(by)
        inner = functools.partial(_answers.inner_by_group, groups=list(groups.values()))
        return dict(zip(groups, tf.unstack(self._against_all(inner), axis=2), strict=True))

    def _against_all(self, inner: Callable[[Block, Block], tf.Tensor]) -> tf.Tensor:
        """Of each block with each, `[B, B, …]`."""
        blocks = self.blocks.for_writing_out()

        def against_all(block: Block) -> tf.Tensor:
            others = blocks.each(lambda other: inner(other, block))
            return tf.transpose(others, [1, 0, *range(2, others.shape.rank)])

        return blocks.each(against_all)

    def second_moment(self) -> list[tf.Tensor]:
        """`(1/B) Σ_i g_i∘g_i`, elementwise, one tensor a variable."""
        count = tf.maximum(self.num_samples, 1)
        sums = self.blocks.for_writing_out().total(_answers.sums_of_squares)
        return [total / tf.cast(count, total.dtype) for total in sums]

    def materialize(self) -> dict[str, tf.Tensor]:
        """The gradients themselves, `{path: [B, *weight.shape]}`: `B×P` numbers."""
        return {
            path: self.blocks.each(_answers.written_out(k, self.batch_term[k].dtype))
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

    def means(self) -> list[tf.Tensor]:
        """The mean of the samples' gradients, without the batch term, as it is accumulated."""
        total = self.blocks.expected or Total(self.sum, self.num_samples, are_means=False)
        return total.means()

    def _grouped(self, columns: tf.Tensor, by: By) -> tf.Tensor | dict[str, tf.Tensor]:
        """Numbers `[B, V]` added up over all variables, or over those of each group."""
        if by == "model":
            return tf.reduce_sum(columns, axis=1)
        return {
            name: tf.reduce_sum(tf.gather(columns, places, axis=1), axis=1)
            for name, places in self._groups(by).items()
        }

    def _groups(self, by: str) -> dict[str, list[int]]:
        if by not in ("variable", "layer"):
            raise PerGradError(f"`by` is 'model', 'layer' or 'variable'. Received: by={by!r}.")
        groups: dict[str, list[int]] = {}
        for k, path in enumerate(self.variables):
            name = path if by == "variable" else path.rpartition("/")[0]
            groups.setdefault(name, []).append(k)
        return groups
