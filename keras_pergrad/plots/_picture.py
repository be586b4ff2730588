"""The figure that all pictures are. Imports matplotlib: for `new_figure` alone."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class Picture(Figure):
    """A matplotlib figure that a notebook shows; of a bare one it needs `pyplot` for that."""

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png")
        return content.getvalue()
