"""What importing the package loads, and which of its modules may know of which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import seldom

import softmaxes

SOURCE = Path(softmaxes.__file__).parent
FILES = {path.relative_to(SOURCE).as_posix(): path for path in SOURCE.rglob("*.py")}
PACKAGE = {name: path for name, path in FILES.items() if not name.startswith("_cli")}

# Knowledge points one way: a module imports those below it and none beside or above it.
LEVELS = (
    {"__main__"},
    {"__init__"},
    {"derivatives", "online"},
    {"_linearised"},
    {"losses"},
    {"_functions"},
    {"_backends"},
    {"_rules"},
    {"_states"},
    {"_primals"},
    {"_arrays"},
)

# Who may say `import` for a library; the command line is a user of the package and has its own file for JAX.
NUMBA = (
    "__init__",
    "_blocks",
    "_calls",
    "_columns",
    "_columns_pulled",
    "_cotangents",
    "_frames",
    "_numbers",
    "_parts",
    "_rows",
    "_shared",
    "_narrow",
    "_slices",
    "_tall",
)
SEAM = {
    "numpy": {
        "_backends/_numpy.py",
        "_backends/_columns.py",
        "_backends/_cotangents.py",
        "_backends/_jax_shared.py",
        "_backends/_jax_sums.py",
        "_backends/_moderate.py",
        *(f"_backends/_numba/{name}.py" for name in NUMBA),
        "_backends/_ordinary.py",
        "_backends/_row.py",
        "_backends/_sums.py",
        "_backends/_tempered.py",
        "_backends/_torch_shared.py",
        "_backends/_xla.py",
    },
    "jax": {
        "_backends/_jax.py",
        "_backends/_jax_products.py",
        "_backends/_jax_modes.py",
        "_backends/_jax_shared.py",
        "_backends/_jax_sums.py",
        "_backends/_xla.py",
        "_cli/_jax.py",
    },
    "torch": {
        "_backends/_torch.py",
        "_backends/_torch_operators.py",
        "_backends/_torch_shared.py",
        "_backends/_torch_threads.py",
    },
    "dask": {"_backends/_dask.py"},
    "numba": {
        *(f"_backends/_numba/{name}.py" for name in ("_cache", "_calls", "_numbers", "_vectors")),
    },
    "cupy": set(),
    "array_api_strict": set(),
}


def imports(path):
    """Return the full names of all that a file imports, at its top or within its functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {"." * node.level + f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(file):
    """Return the part of the package that a file or a module belongs to."""
    return file.removesuffix(".py").partition("/")[0]


def test_importing_the_package_loads_no_library_but_numpy():
    code = "import sys, softmaxes; print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in _python(code).split()}
    dear = {"jax", "jaxlib", "torch", "dask", "cupy", "scipy", "matplotlib", "rich", "pytest"}
    assert loaded & dear == set()
    assert loaded & {"numpy", "array_api_compat", "array_api_extra"} == {
        "numpy",
        "array_api_compat",
        "array_api_extra",
    }


def test_an_array_of_numpy_loads_nothing_more():
    code = "import sys, softmaxes as sm; sm.vjp(sm.softmax, [1.0]); print(*sys.modules)"
    assert not {"jax", "torch", "dask", "cupy"} & set(_python(code).split())


def test_importing_the_package_changes_no_setting_and_prints_nothing():
    code = """
import os, warnings, numpy
before = dict(os.environ), numpy.geterr(), numpy.get_printoptions(), list(warnings.filters)
import softmaxes
assert before == (dict(os.environ), numpy.geterr(), numpy.get_printoptions(), warnings.filters)
"""
    assert _python(code) == ""


def test_using_jax_changes_no_setting_of_it(jax):
    code = """
import jax
before = dict(jax.config.values)
import softmaxes as sm
jax.grad(sm.logsumexp)(jax.numpy.ones(2))
assert before == dict(jax.config.values)
"""
    assert _python(code) == ""


def _python(code):
    """Run code in a fresh interpreter, where warnings are errors, and return what it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("library", SEAM)
def test_a_library_is_imported_in_its_own_file_only(library):
    importing = {
        name
        for name, path in FILES.items()
        if library in {module.partition(".")[0] for module in imports(path)}
    }
    if library == "numpy":  # the command line computes with it
        importing = {name for name in importing if name in PACKAGE}
    assert importing <= SEAM[library]


@pytest.mark.parametrize(
    "name", [name for name in PACKAGE if part(name) in ("_primals", "_rules", "_states")]
)
def test_the_maths_knows_no_library(name):
    outside = {module.partition(".")[0] for module in imports(PACKAGE[name])}
    assert outside <= {"softmaxes", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", PACKAGE)
def test_knowledge_points_one_way(name):
    levels = {module: depth for depth, level in enumerate(LEVELS) for module in level}
    mine = levels[part(name)]
    for module in imports(PACKAGE[name]):
        assert not module.startswith("."), "a relative import"
        root, _, rest = module.partition(".")
        other = rest.partition(".")[0]
        if root != "softmaxes" or other == part(name) or other == "_cli":
            continue
        # `from softmaxes import _rules` and `from softmaxes._rules import Rule`, and neither of them the face
        assert other in levels, f"{name} imports {module} through the face"
        assert levels[other] > mine, f"{name} imports {module}"


def test_only_the_command_line_imports_the_command_line():
    assert {
        name for name, path in PACKAGE.items() if any("_cli" in module for module in imports(path))
    } <= {"__main__.py"}


@pytest.mark.parametrize(
    "name",
    [  # PyTorch takes seconds to import
        seldom(name) if name.startswith("_backends/_torch_") else name
        for name in PACKAGE
        if name != "__main__.py"
    ],
)
def test_every_module_can_be_imported_first(name):
    module = ".".join(["softmaxes", *Path(name).with_suffix("").parts]).removesuffix(".__init__")
    for library in ("jax", "torch", "dask", "numba"):
        if f"_backends._{library}" in module or f"_cli._{library}" in module:
            pytest.importorskip(library)
    _python(f"import {module}")
