#!/usr/bin/env -S uv run --script

# /// script
# requires-python = ">=3.11"
# dependencies = ["nox>=2025.10.16"]
# ///

"""The checks of the house. Plain `nox` runs the tests; `nox --list` shows the rest."""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.16"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_external_run = True

PROJECT = nox.project.load_toml()
PYTHONS = nox.project.python_versions(PROJECT)
LIBRARIES = ("numpy", "strict", "jax", "torch", "dask", "cupy")
# On PyTorch what is its own; the rest of the suite on it is `backend(torch)`.
SELECTED = ("-k", "not [torch or test_torch")
TOGETHER = "numpy,strict,jax,torch"
# A backend needs its library to be imported, and has no examples.
EXAMPLES = ("--doctest-modules", "--ignore=src/softmaxes/_backends", "src")


def groups(*names: str) -> tuple[str, ...]:
    """Return the requirements of dependency groups."""
    return nox.project.dependency_groups(PROJECT, *names)


def floors() -> list[str]:
    """Return the oldest supported versions: the lower bounds that pyproject.toml states."""
    project = PROJECT["project"]
    stated = project["dependencies"] + project["optional-dependencies"]["jax"]
    return [requirement.replace(">=", "==") for requirement in stated]


def pytest(session: nox.Session, *arguments: str, backends: str, **environment: str) -> None:
    """Run pytest on all cores, with these array libraries."""
    environment["SOFTMAXES_TEST_BACKENDS"] = backends
    # Workers share on disk what JAX has compiled, and neighbours in memory: each begins with half in a row.
    environment["JAX_COMPILATION_CACHE_DIR"] = str(session.cache_dir.resolve() / "jax")
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    arguments = ("-n", "auto", "--dist", "worksteal", *arguments, *session.posargs)
    session.run("pytest", *arguments, env=environment)


@nox.session
def tests(session: nox.Session) -> None:
    """Test on NumPy, array-api-strict, JAX and PyTorch, and run the examples of docstrings."""
    session.install("-e.", *groups("test", "torch"))
    pytest(session, *SELECTED, "-m", "not slow", *EXAMPLES, "tests", backends=TOGETHER)


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """Run the slow tests: a million entries, every promise on every backend, the longest page."""
    session.install("-e.", *groups("test", "torch"))
    pytest(session, *SELECTED, "-m", "slow", "tests", backends=TOGETHER)


@nox.session(python=PYTHONS, default=False)
@nox.parametrize("library", [nox.param(name, id=name, tags=[name]) for name in LIBRARIES])
def backend(session: nox.Session, library: str) -> None:
    """Test with one array library installed and no other."""
    session.install("-e.", *groups("test-base", library))
    pytest(session, "tests", backends=library)


@nox.session(default=False)
def compiled(session: nox.Session) -> None:
    """Test NumPy, and JAX and PyTorch on top of it, in loops that Numba compiles."""
    session.install("-e.", *groups("test", "torch", "numba"))
    pytest(session, "tests", backends="numpy,jax", SOFTMAXES_NUMBA="1")
    files = sorted(map(str, Path("tests").glob("test_torch*.py")))
    pytest(session, *files, backends="numpy,torch", SOFTMAXES_NUMBA="1")


@nox.session(default=False)
def others(session: nox.Session) -> None:
    """Test on libraries that nothing in the code was written for."""
    session.install("-e.", *groups("test-base", "others"))
    pytest(session, "tests/test_other_libraries.py", backends="numpy")


@nox.session(python=PYTHONS[0], default=False)
def minimum(session: nox.Session) -> None:
    """Test on the oldest supported versions."""
    session.install("-e.", *floors(), *groups("test"))
    pytest(session, "tests", backends="numpy,strict,jax")


@nox.session(default=False)
def bare(session: nox.Session) -> None:
    """Run the tour on the hard dependencies alone, then test on NumPy."""
    session.install(".")
    session.run("python", "-m", "softmaxes")
    session.install(*groups("test-base"))
    pytest(session, "tests", backends="numpy")


@nox.session(default=False)
def doctest(session: nox.Session) -> None:
    """Run the docstring examples."""
    session.install("-e.", *groups("test"))
    session.run("pytest", *EXAMPLES, *session.posargs)


@nox.session(default=False)
def howto(session: nox.Session) -> None:
    """Run the pages about other libraries, and compare with the calls of each."""
    session.install("-e.", *groups("test-base", "howto"))
    files = ("tests/test_docs.py", "tests/test_errors.py")
    session.run("pytest", *files, "-k", "howto or elsewhere or xarray", *session.posargs)


@nox.session(default=False)
def lint(session: nox.Session) -> None:
    """Check style, formatting, spelling, docstrings and the shape of the repository."""
    session.install(*groups("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("codespell")
    session.run("numpydoc", "lint", *map(str, Path("src").rglob("*.py")))
    session.run("repo-review", ".")


@nox.session(default=False)
def typing(session: nox.Session) -> None:
    """Check the types."""
    session.install("-e.", *groups("typing"))
    session.run("mypy", *session.posargs)


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """Build the documentation, which runs its examples; warnings are errors."""
    session.install("-e.", *groups("docs"))
    session.run("sphinx-build", "-E", "-W", "--keep-going", "docs", "docs/_build", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure time, memory and error beside the peers; fails where the machine is not steady."""
    session.install(".", *groups("bench"))
    session.run("python", "benchmarks/suite.py", *session.posargs)


@nox.session(default=False)
def against(session: nox.Session) -> None:
    """Time this version in turns with another revision, and fail where it has become slower."""
    revision, *_ = session.posargs or ["HEAD"]
    session.install(".", *groups("bench"))
    other = Path(session.create_tmp(), "other").resolve()
    shutil.rmtree(other, ignore_errors=True)
    session.run("git", "worktree", "prune", external=True)
    session.run("git", "worktree", "add", "--detach", str(other), revision, external=True)
    try:
        session.run("python", "benchmarks/against.py", str(other / "src"))
    finally:
        session.run("git", "worktree", "remove", "--force", str(other), external=True)


@nox.session(default=False)
def cluster(session: nox.Session) -> None:
    """Measure time and memory of Dask on a cluster of processes, with an array larger than memory."""
    session.install(".", *groups("dask"))
    session.run("python", "benchmarks/dask_cluster.py", *session.posargs)


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build sdist and wheel, and test the installed wheel."""
    shutil.rmtree("dist", ignore_errors=True)
    session.install(*groups("build"))
    session.run("python", "-m", "build")
    (wheel,) = Path("dist").glob("*.whl")
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))
    session.install(str(wheel), *groups("test"))
    where = session.run("python", "-c", "import softmaxes; print(softmaxes.__file__)", silent=True)
    if "site-packages" not in str(where):
        session.error(f"the tests would run against {where}, not against the wheel")
    pytest(session, "tests", backends="numpy,strict,jax")


if __name__ == "__main__":
    nox.main()
