"""The table of how the sample gradients of each weight are held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import tensorflow as tf
from rich import box
from rich.table import Table

from keras_pergrad._text import render
from keras_pergrad.gradients._blocks import Held

_COLUMNS = ("variable", "operation", "form", "bytes a sample", "remark")


def table_of(paths: Sequence[str], held: Sequence[Held], unconnected: dict[str, str]) -> str:
    """A row for each weight: where it meets samples, the form, its size, and why it is so.

    Args:
        paths: of the weights.
        held: how the gradients of each are held.
        unconnected: path → reason of the weights that have none.
    """
    table = Table(box=box.SIMPLE_HEAD)
    for name in _COLUMNS:
        table.add_column(name, overflow="fold", justify="right" if "bytes" in name else "left")
    for path, each in zip(paths, held, strict=True):
        reason = unconnected.get(path)
        remark = f"no gradient: {reason}" if reason else each.because
        counted = Counter(each.operations).items()
        where = ", ".join(f"{n} × {name}" if n > 1 else name for name, n in counted)
        table.add_row(path, where, each.form, f"{each.bytes_each:,}", remark)
    return render(table)


def written_out(weights: Sequence[tf.Tensor]) -> list[Held]:
    """How the gradients of weights of these shapes are held where nothing else is said."""
    sizes = [weight.shape.num_elements() * weight.dtype.size for weight in weights]
    return [Held((), "materialized", size) for size in sizes]
