"""``python -m softmaxes info``: versions, devices and what works where, to paste into a report."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version

from softmaxes._cli import capabilities
from softmaxes._cli.backends import namespace
from softmaxes._cli.report import Table

__all__ = ["devices", "tables", "versions"]

PACKAGES = (
    "softmaxes",
    "numpy",
    "array-api-compat",
    "array-api-extra",
    "array-api-strict",
    "jax",
    "jaxlib",
    "jax-cuda12-plugin",
    "jax-cuda13-plugin",
    "libtpu",
    "ml_dtypes",
    "torch",
    "dask",
    "cupy",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "mparray",
    "scipy",
    "rich",
)
LIBRARIES = tuple(name for name in capabilities.LIBRARIES if name != "array-api-strict")


def tables() -> Iterator[Table]:
    """Yield the report's tables."""
    yield versions()
    yield devices()
    yield capabilities.table()


def versions(packages: Collection[str] = PACKAGES) -> Table:
    """Tabulate the interpreter, the platform and the version of every package, without importing any."""
    machine = (
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("platform", platform.platform()),
        ("processor", f"{platform.machine()}, {os.cpu_count()} logical cores"),
    )
    rows = (*machine, *((package, _version(package)) for package in packages))
    return Table("versions", "Versions", {"name": "", "version": ""}, rows)


def devices(libraries: Collection[str] = LIBRARIES) -> Table:
    """Tabulate the devices of every array library; this imports those that are installed."""
    rows = [(library, _devices(library)) for library in libraries]
    return Table(
        "devices", "Array libraries and their devices", {"library": "", "devices": ""}, rows
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _devices(library: str) -> str:
    xp = namespace(library)
    if xp is None:
        return "not installed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of the device types it no longer has.
            found = xp.__array_namespace_info__().devices()
    except RuntimeError as error:  # A library without a working driver; that is worth reporting.
        return f"error: {error}"
    return ", ".join(str(device) for device in found if device is not None)
