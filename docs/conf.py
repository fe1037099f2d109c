"""How Sphinx builds the documentation: offline, every example executed."""

from __future__ import annotations

import os
from importlib.metadata import version as installed_version

project = "softmaxes"
author = "The softmaxes developers"
copyright = f"2026, {author}"  # noqa: A001  the name that Sphinx reads
version = release = installed_version(project)

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx-mathjax-offline",  # MathJax among the pages, so that formulas show without a network
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]

# The links into other projects need their indexes from the network, so they are opt-in.
if os.environ.get("DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
    }

html_theme = "furo"
html_title = f"softmaxes {release}"

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
nb_execution_mode = "force"  # a cache keyed by the page would not see a change in the package
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autosummary_generate = True
autodoc_typehints = "none"  # the numpydoc sections state types and shapes
numpydoc_show_class_members = False
