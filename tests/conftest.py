"""The array libraries that the tests run on.

`backend` hands a test one library at a time, in every manner in which the package must work on it. The variable
SOFTMAXES_TEST_BACKENDS, a comma list of numpy, strict, jax, torch, dask and cupy, chooses the libraries; one that it
names must be there. Without it, those of numpy, strict, jax and cupy are tested that are installed and have a device.
"""

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import ml_dtypes  # noqa: F401, teaches NumPy the name "bfloat16"
import numpy as np
import pytest
from hypothesis import settings

from softmaxes._backends._compiled import loops
from softmaxes._cli.capabilities import ENGINES

# Two devices of JAX, to tell where a result is; set before it is imported.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
)

# The same examples in every run, however slow the machine.
settings.register_profile("softmaxes", deadline=None, derandomize=True)
settings.load_profile("softmaxes")

MODULES = {
    "numpy": "numpy",
    "strict": "array_api_strict",
    "jax": "jax",
    "torch": "torch",
    "dask": "dask.array",
    "cupy": "cupy",
}
REQUESTED = os.environ.get("SOFTMAXES_TEST_BACKENDS", "")
LIBRARIES = tuple(REQUESTED.split(",")) if REQUESTED else ("numpy", "strict", "jax", "cupy")


@dataclass(frozen=True)
class Backend:
    """An array library and a manner of calling functions on it."""

    name: str
    xp: Any
    make: Callable[..., Any]  # an array of the library from one of NumPy
    call: Callable[..., Any] = lambda function, *args, **options: function(*args, **options)
    to_numpy: Callable[[Any], np.ndarray] = np.asarray
    has_float16: bool = True
    has_bfloat16: bool = True
    default: str = "float64"  # the dtype that integers become
    autodiff: Any = (
        None  # the module of grad, jvp, vjp, jacfwd, jacrev and hessian, where there is one
    )
    traced: bool = False  # values are not known when the function runs
    flags: Any = field(default_factory=nullcontext)

    def has(self, dtype):
        """Tell whether the library knows the dtype, named by a string."""
        return {"float16": self.has_float16, "bfloat16": self.has_bfloat16}.get(str(dtype), True)

    def asarray(self, values, dtype="float64"):
        """Return an array of the library; `dtype` is the name of a dtype, or None for that of the values."""
        return self.make(np.array(values, dtype=dtype))

    def run(self, function, *args, **options):
        """Return function(*args, **options) as the backend means it: jitted, or as the first of a batch.

        The arrays of the library among the arguments are traced; everything else is static.
        """
        return self.call(function, *args, **options)


class _InThisThread:
    """Let Dask compute in this thread, where the settings of the test hold."""

    def __enter__(self):
        import dask

        self.setting = dask.config.set(scheduler="synchronous")
        self.setting.__enter__()

    def __exit__(self, *error):
        self.setting.__exit__(*error)


def _readonly(a):
    a.flags.writeable = False
    return a


def _in_chunks(a):
    """Return an array of Dask with three chunks along every axis, the first of them empty."""
    import dask.array as da

    if a.size == 0:  # the reshape of Dask takes these in one chunk only
        return da.from_array(a)
    return da.from_array(a, chunks=tuple((0, n // 2, n - n // 2) for n in a.shape))


def _tensor(a):
    import torch

    if a.dtype.name != "bfloat16":
        return torch.from_numpy(a)
    return torch.from_numpy(a.view("int16")).view(torch.bfloat16)


def _from_tensor(a):
    import torch

    if getattr(a, "dtype", None) != torch.bfloat16:
        return np.asarray(a)
    return a.view(torch.int16).numpy().view("bfloat16")


def _jitted(function, *args, batched=False, **options):
    import jax

    arguments = (*args, *options.values())
    traced = tuple(isinstance(a, jax.Array) for a in arguments)
    arrays = [a for a, is_array in zip(arguments, traced, strict=True) if is_array]
    static = tuple(a for a, is_array in zip(arguments, traced, strict=True) if not is_array)
    kind = function, traced, static, tuple(options), batched
    try:
        f = _compiled(*kind)
    except TypeError:  # unhashable: compiled for this call alone
        f = _compiled.__wrapped__(*kind)
    if not batched:
        return f(*arrays)
    # Beside the array, one of zeros: nothing may leak from one to the other.
    batch = f(*(jax.numpy.stack([a, jax.numpy.zeros_like(a)]) for a in arrays))
    return jax.tree.map(lambda y: y[0], batch)


@cache
def _compiled(function, traced, static, names, batched):
    import jax

    def f(*arrays):
        arrays, others = iter(arrays), iter(static)
        arguments = [next(arrays if is_array else others) for is_array in traced]
        n = len(arguments) - len(names)
        return function(*arguments[:n], **dict(zip(names, arguments[n:], strict=True)))

    return jax.jit(jax.vmap(f) if batched else f)


@cache
def backend_named(name):
    library, _, manner = name.partition("-")
    if library == "numpy":
        return Backend(name, np, _readonly if manner else np.asarray)
    if library == "strict":
        import array_api_strict as xp

        flags = xp.ArrayAPIStrictFlags(
            api_version=manner,
            boolean_indexing=False,
            data_dependent_shapes=False,
            enabled_extensions=(),
        )
        return Backend(name, xp, xp.asarray, has_float16=False, has_bfloat16=False, flags=flags)
    if library == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
        _hand_all_to_loops()
        call = {"jit": _jitted, "vmap": partial(_jitted, batched=True)}.get(manner, Backend.call)
        return Backend(name, jax.numpy, jax.numpy.asarray, call, autodiff=jax, traced=bool(manner))
    if library == "torch":
        import torch

        return Backend(
            name, torch, _tensor, to_numpy=_from_tensor, default="float32", autodiff=torch.func
        )
    if library == "dask":
        import dask.array as xp

        make = _in_chunks if manner else xp.asarray
        return Backend(name, xp, make, has_bfloat16=False, traced=True, flags=_InThisThread())
    if library == "cupy":
        import cupy

        return Backend(name, cupy, cupy.asarray, to_numpy=cupy.asnumpy, has_bfloat16=False)
    pytest.fail(f"SOFTMAXES_TEST_BACKENDS names {library!r}, expected some of {', '.join(MODULES)}")


def missing(library):
    """Tell why a library cannot be tested; never of one that was asked for, whose import is to fail."""
    if REQUESTED:
        return ""
    if find_spec(MODULES[library].partition(".")[0]) is None:
        return f"{MODULES[library]} is not installed"
    if library == "cupy" and not import_module("cupy").is_available():
        return "cupy has no device"
    return ""


def _parameters():
    manners = {
        "numpy": ("numpy", "numpy-readonly"),
        "strict": ("strict-2024.12", "strict-2025.12"),
        "jax": ("jax", "jax-jit", "jax-vmap"),
        "dask": ("dask", "dask-chunked"),
    }
    for library in LIBRARIES:
        marks = [pytest.mark.skipif(bool(reason := missing(library)), reason=reason)]
        yield from (pytest.param(name, marks=marks) for name in manners.get(library, (library,)))


def seldom(*values, **options):
    """Return a parameter of the slow session."""
    return pytest.param(*values, marks=pytest.mark.slow, **options)


# What every row and value is tried in; the other files do so in the slow session.
SELDOM, IN_ALL = {"jax-vmap", "strict-2024.12"}, {"test_contract.py", "test_values.py"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        of = getattr(item, "callspec", None)
        if of and of.params.get("backend") in SELDOM and item.path.name not in IN_ALL:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=_parameters())
def backend(request):
    """One array library, called in one manner."""
    backend = backend_named(request.param)
    with backend.flags:
        yield backend


def _hand_all_to_loops() -> None:
    """Where loops are compiled, let JAX hand over few entries too, though there are two devices here."""
    if loops() is not None and not HANDED_OVER:
        from softmaxes._backends import _jax_shared

        HANDED_OVER.update(MANY=_jax_shared.MANY, DEVICES=_jax_shared.DEVICES)
        _jax_shared.MANY, _jax_shared.DEVICES = 1, 2


HANDED_OVER = {}  # what the package has there, if it is not what the tests have


@pytest.fixture
def handed_over_as_it_comes(monkeypatch):
    """Let JAX hand over to compiled loops what it does but for these tests."""
    if HANDED_OVER:
        from softmaxes._backends import _jax_shared

        for name, number in HANDED_OVER.items():
            monkeypatch.setattr(_jax_shared, name, number)
        sys.modules["jax"].clear_caches()


# Compiled where the tests of it are fast.
MANNERS = {"jax": "jax-jit"}


@pytest.fixture(params=[MANNERS.get(name, name) for name in LIBRARIES if name in ENGINES])
def differentiable(request):
    """One array library that differentiates, in one manner."""
    return backend_named(request.param)


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_functions():
    """Give back, after each file, the memory of what JAX has compiled."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture
def xp(backend):
    """The namespace of the array library."""
    return backend.xp


@pytest.fixture
def jax():
    """The module jax, in double precision, where it is tested."""
    return _tested("jax")


@pytest.fixture
def torch():
    """The module torch, where it is tested."""
    return _tested("torch")


def _tested(library):
    if library not in LIBRARIES or missing(library):
        pytest.skip(f"{library} is not tested")
    backend_named(library)
    return pytest.importorskip(library)
