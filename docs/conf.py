"""Sphinx settings: MyST-NB pages whose code runs anew at every build, warnings as errors."""

import os
from importlib import metadata

# The notebooks' kernels inherit these.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("PYTHONHASHSEED", "0")

project = "keras_pergrad"
author = "keras_pergrad contributors"
copyright = author
try:
    release = metadata.version("keras_pergrad")
except metadata.PackageNotFoundError:  # a source tree on the path, not installed
    release = "source tree"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"keras_pergrad {release}"

# Every number on a page is printed by the package as it is now: no cache of earlier outputs.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
default_role = "code"  # docstrings mark code with single backticks
smartquotes_action = "D"

nitpick_ignore_regex = [
    # What others document is not linked to: an inventory of theirs needs a network.
    (r"py:.*", r"(keras|tensorflow|tf|np|numpy|os|pathlib|collections\.abc)\..*"),
    # Types of figures and of what they are drawn from, which are imported for the checker alone.
    (r"py:class", r"Figure|Source|keras_pergrad\.diagnostics\._monitor\.Monitor"),
]
