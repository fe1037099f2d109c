"""The documentation keeps its word: every example runs, and prints the numbers that everyone knows."""

import ast
import doctest
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import softmaxes as sm

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MODULES = ["jax", "matplotlib"]  # what an example may need beside NumPy

# A fenced block of code; in docs/ those that Sphinx runs, in the README all Python.
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# How a cell is shown: a block of YAML, or lines that begin with a colon.
OPTIONS = re.compile(r"\A(---\n.*?^---\n|(:.*\n)+)", re.DOTALL | re.MULTILINE)

# What the pages must print, among other things.
PRINTED = {
    "index.md": ["[-4.1223074e-09  2.0611537e-09  2.0611537e-09]"] * 3,
    "softmax.md": [
        "[0.0320586  0.08714432 0.23688282 0.64391426] 1.0",
        "[0.01165623 0.03168492 0.08612854 0.23412166 0.63640865]",
        "[0.01165623 0.03168492 0.08612854 0.23412166 0.63640865]",
        "[0.10153632 0.1674051  0.27600434 0.45505423]",
        "[0.25 0.25 0.25 0.25]",
        "[0.  0.  0.5 0.5]",
        "[inf",
        "0.0 [  0. -inf]",
        "[  -0. -800.]",
        "1.0 -4.248354255291589e-18",
    ],
    "derivatives.md": [
        "jax.nn     loss 0.0000e+00  gradient 0.0000e+00",
        "softmaxes  loss 4.1223e-09  gradient -4.1223e-09",
    ],
    "numerics.md": [
        "0.0 4.248354255291589e-18",
        "0.0 -4.248354255291589e-18",
        "numpy    softmax ",
        "numpy    log_softmax ",
        "numpy    logsumexp ",
    ],
    "api.md": ["info", "check", "--json"],
}
SLOW = ["numerics.md"]


def pages():
    paths = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    for path in paths:
        if examples(path):
            yield pytest.param(path, id=path.name, marks=[pytest.mark.slow] * (path.name in SLOW))


def examples(path):
    """The line before each example of a page, and its code."""
    text = path.read_text(encoding="utf-8")
    for match in (BLOCK if path.name == "README.md" else CELL).finditer(text):
        code = match[1]
        options = OPTIONS.match(code)
        start = match.start(1) + (options.end() if options else 0)
        yield text.count("\n", 0, start), text[start : match.end(1)]


examples_of = lambda path: list(examples(path))  # noqa: E731


@pytest.fixture
def as_a_reader(monkeypatch):
    """The folder of the pages, no window to draw in, and the settings that JAX comes with."""
    monkeypatch.chdir(DOCS)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(source))
    jax = sys.modules.get("jax")
    before = jax and jax.config.jax_enable_x64
    if before:
        jax.config.update("jax_enable_x64", False)
    yield
    if before:
        jax.config.update("jax_enable_x64", True)
