"""What works where: every function can do with the arrays of a library what the table says, and no more."""

from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
from array_api_compat import to_device
from conftest import MODULES, backend_named

import softmaxes as sm
from softmaxes import online
from softmaxes._arrays import device, namespace_of
from softmaxes._cli.backends import NAMESPACES
from softmaxes._cli.capabilities import (
    CAPABILITIES,
    ENGINES,
    FUNCTIONS,
    LIBRARIES,
    supported,
    table,
)

X = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
Q = np.array([[0.2, 0.3, 0.5], [0.0, 0.5, 0.5]])
LABELS = np.array([[0.75, 0.25], [1.0, 0.0]])


def seen(x):
    """Return the state of the scores, seen with themselves as values."""
    nothing = online.empty(mean_shape=(), device=device(x), xp=namespace_of(x))
    return online.update(nothing, x, values=x)


# A call of every function: an array out of X, and of constants.
CALLS = {
    "softmax": (sm.softmax,),
    "log_softmax": (sm.log_softmax,),
    "logsumexp": (sm.logsumexp,),
    "cross_entropy": (sm.cross_entropy, Q),
    "kl_divergence": (sm.kl_divergence, Q),
    "entropy": (sm.entropy,),
    "linear_cross_entropy": (sm.linear_cross_entropy, Q, LABELS),
    "jvp": (lambda x, v: sm.jvp(sm.softmax, x, v)[1], Q),
    "vjp": (lambda x, u: sm.vjp(sm.softmax, x)[1](u), Q),
    "jacobian": (lambda x: sm.jacobian(sm.softmax, x),),
    "hvp": (lambda x, v: sm.hvp(sm.logsumexp, x, v), Q),
    "online.update": (lambda x: seen(x).mean,),
    "online.merge": (lambda x, y: online.merge(seen(x), seen(y)).mean, Q),
    "online.logsumexp": (lambda x: online.logsumexp(seen(x)),),
    "online.softmax": (lambda x: online.softmax(x, seen(x)),),
    "online.expectation": (lambda x: online.expectation(seen(x)),),
}
PUBLIC = {name: getattr(sm, name) for name in sm.__all__}
PUBLIC |= {f"online.{name}": getattr(online, name) for name in online.__all__}
NAMES = {"array-api-strict": "strict-2025.12"}  # of the backends of the tests


# How to find out whether a function can ------------------------------------------------------------------------------


def is_eager(library, function, *arrays):
    assert_value(library, function(*arrays), function)


def compiles(library, function, *arrays):
    if library == "torch":
        import torch

        torch.compiler.reset()
        function_compiled = torch.compile(function, fullgraph=True, backend="eager")
        return assert_value(library, function_compiled(*arrays), function)
    return assert_value(library, backend_named(f"{library}-jit").run(function, *arrays), function)


def has_a_gradient(library, function, *arrays):
    x, *rest = arrays
    if library in ENGINES:
        grad = backend_named(library).autodiff.grad
        found = grad(lambda x: (function(x, *rest) ** 2).sum())(x)
    else:
        y, pullback = sm.vjp(function, x, *rest)
        found = pullback(2 * y)
    step = 1e-6
    higher, lower = (
        np.sum(function(X + d * Q, *as_numpy(library, rest)) ** 2) for d in (step, -step)
    )
    expected = (higher - lower) / (2 * step)
    (found,) = as_numpy(library, [found])
    np.testing.assert_allclose(np.sum(found * Q), expected, rtol=1e-7)


def is_lazy(library, function, *arrays):
    import dask

    with dask.config.set(scheduler=refuse):
        y = function(*arrays)
    assert_value(library, y, function)


def refuse(*arguments, **options):
    raise AssertionError("something was computed before it was asked for")


def is_batched(library, function, *arrays):
    if library == "torch":
        import torch

        batch = (torch.stack([torch.zeros_like(a), a]) for a in arrays)
        return assert_value(library, torch.func.vmap(function)(*batch)[1], function)
    return assert_value(library, backend_named(f"{library}-vmap").run(function, *arrays), function)


def keeps_the_device(library, function, *arrays):
    there = another_device(library)
    y = function(*(to_device(a, there) for a in arrays))
    assert device(y) == there != device(arrays[0])


def another_device(library):
    """Return a device that is not the default one, where there is more than one."""
    if library == "torch":
        return backend_named(library).xp.device("meta")
    if library == "jax":
        import jax

        return jax.devices()[1]
    if library == "array-api-strict":
        return backend_named(NAMES[library]).xp.Device("device1")
    return None


PROBES = dict(
    zip(
        CAPABILITIES,
        (is_eager, compiles, has_a_gradient, is_lazy, is_batched, keeps_the_device),
        strict=True,
    )
)


def assert_value(library, y, function):
    """Assert that a function of X has the value that it has on NumPy."""
    constants = next(rest for f, *rest in CALLS.values() if f is function)
    (found,) = as_numpy(library, [y])
    np.testing.assert_allclose(found, function(X, *constants), rtol=1e-12, atol=1e-15)


def as_numpy(library, arrays):
    return [backend_named(NAMES.get(library, library)).to_numpy(a) for a in arrays]


# The table -----------------------------------------------------------------------------------------------------------


def top_module(library):
    return NAMESPACES[library].removeprefix("array_api_compat.").partition(".")[0]


def marks(library, *others):
    if find_spec(top_module(library)) is None:
        return [pytest.mark.skip(reason=f"{library} is not installed"), *others]
    return others


every_library = pytest.mark.parametrize(
    "library", [pytest.param(library, marks=marks(library)) for library in LIBRARIES]
)


# Each compiles every function anew, as do other tests.
SLOW = (("torch", "compiled"), ("jax", "vmap"), ("jax", "device"))


def rows():
    for library, can in LIBRARIES.items():
        for capability in can:
            slow = [pytest.mark.slow] if (library, capability) in SLOW else []
            for function in FUNCTIONS:
                yield pytest.param(function, library, capability, marks=marks(library, *slow))


@pytest.mark.parametrize(("function", "library", "capability"), list(rows()))
def test_what_the_table_says_is_so(function, library, capability):
    backend = backend_named(NAMES.get(library, library))
    f, *constants = CALLS[function]
    with backend.flags:
        arrays = [backend.asarray(a) for a in (X, *constants)]
        if capability in supported(function, library):
            PROBES[capability](library, f, *arrays)
        else:
            assert capability == "gradient"
            with pytest.raises(TypeError, match="function must be one of"):
                sm.vjp(PUBLIC[function], *arrays)


@every_library
def test_the_table_omits_nothing_that_a_library_can_do(library):
    module = import_module(top_module(library))
    is_lazy = hasattr(backend_named(NAMES.get(library, library)).asarray(X), "compute")
    can = {
        "eager": not is_lazy,
        "compiled": hasattr(module, "jit") or hasattr(module, "compile"),
        "gradient": True,  # by a rule
        "lazy": is_lazy,
        "vmap": hasattr(module, "vmap"),
        "device": another_device(library) is not None,
    }
    assert {name for name in can if can[name]} == set(LIBRARIES[library])


def test_the_table_has_every_function_and_every_function_is_tested():
    takes_arrays = {
        name for name, f in PUBLIC.items() if name not in ("online.State", "online.empty")
    }
    assert set(FUNCTIONS) == takes_arrays == CALLS.keys()


def test_the_table_has_every_library_and_every_library_is_tested():
    tested = {"array-api-strict" if name == "strict" else name for name in MODULES}
    assert set(LIBRARIES) == NAMESPACES.keys() == tested


def test_the_table_shows_a_capability_by_its_first_letter():
    assert len({name[0] for name in CAPABILITIES}) == len(CAPABILITIES)
    shown = {row[0]: row[1:] for row in table().rows}
    assert shown["softmax"] == ("e-g---", "e-g--d", "ecg-vd", "ecg-vd", "--gl--", "e-g--d")
