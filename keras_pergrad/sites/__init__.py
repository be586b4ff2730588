"""Where weights meet data, and what the samples' gradients are there."""

from keras_pergrad.sites._axes import is_known
from keras_pergrad.sites._interaction import interactions
from keras_pergrad.sites._layout import Layout, Layouts
from keras_pergrad.sites._pull import factor_at
from keras_pergrad.sites._region import Place, Region, find_region
from keras_pergrad.sites._site import NoSiteError, Site
from keras_pergrad.sites._trace import Trace, prime_for

__all__ = [
    "Layout",
    "Layouts",
    "NoSiteError",
    "Place",
    "Region",
    "Site",
    "Trace",
    "factor_at",
    "find_region",
    "interactions",
    "is_known",
    "prime_for",
]
