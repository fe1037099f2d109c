"""What importing the package loads, and which module may know of which."""

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import softmaxes

SOURCE = Path(softmaxes.__file__).parent
LIBRARY = sorted(path for path in SOURCE.rglob("*.py") if "_cli" not in path.parts)
PATHS = {path.relative_to(SOURCE).as_posix(): path for path in LIBRARY}

# The one file that may import an array library.
SEAM = {"jax": "_jax.py", "torch": "_torch.py", "dask": "_dask.py", "numpy": "_numpy.py"}

# Knowledge points down: a module may import those of lower levels.
LEVELS = [
    {"__main__"},
    {"__init__"},
    {"derivatives", "losses", "online"},
    {"_functions"},
    {"_backends"},
    {"_rules"},
    {"_primals"},
    {"_arrays"},
]

EXPENSIVE = ("jax", "jaxlib", "torch", "dask", "cupy", "scipy", "matplotlib", "rich", "array_api_strict")


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def imported(path):
    """Yield (module, at the top level) of every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from names
