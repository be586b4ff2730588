"""Models that are broken in a known way, each with what a report has to name, and where.

One file a theme; `base.py` has what they are made of.
"""

from tests.broken.base import Broken
from tests.broken.kept import KEPT
from tests.broken.losses import LOSSES
from tests.broken.mixing_layers import MIXING
from tests.broken.placing import PLACING
from tests.broken.rounding import ROUNDING
from tests.broken.several import SEVERAL
from tests.broken.shapes import SHAPES
from tests.broken.terms import TERMS
from tests.broken.unknown import UNKNOWN
from tests.broken.unsteady import UNSTEADY

BROKEN: dict[str, Broken] = (
    MIXING | PLACING | LOSSES | TERMS | SHAPES | UNSTEADY | KEPT | ROUNDING | UNKNOWN | SEVERAL
)
