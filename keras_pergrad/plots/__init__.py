"""Pictures of what was measured: each function takes records or a monitor, and returns a Figure.

One file a picture; nothing is shown, and matplotlib's global state is left alone. `report` writes
them all into one HTML file.
"""

from keras_pergrad.plots._cosines import cosines
from keras_pergrad.plots._dashboard import dashboard
from keras_pergrad.plots._noise_scale import noise_scale
from keras_pergrad.plots._norms import norms
from keras_pergrad.plots._outliers import outliers
from keras_pergrad.plots._report import report
from keras_pergrad.plots._snr import snr

__all__ = ["cosines", "dashboard", "noise_scale", "norms", "outliers", "report", "snr"]
