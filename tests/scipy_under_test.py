"""
A pytest plugin that points SciPy's own tests of softmax, log_softmax and logsumexp at ours.

Complex input and `return_sign` are not offered, so those tests are left out, by name.
"""

import scipy.special
from scipy._lib._array_api import xp_capabilities_table

import softmaxes as sm

LEFT_OUT = (
    "test_wrap_radians",  # of a helper of SciPy's
    "test_logsumexp_sign",  # these and the next two ask for return_sign
    "test_gh22903",
    "test_gh23548",
    "test_logsumexp_complex_sign",
    "test_gh21709_small_imaginary",
)


def softmax(x, axis=None):
    return sm.softmax(x, axis)


def log_softmax(x, axis=None):
    return sm.log_softmax(x, axis)


def logsumexp(a, axis=None, b=None, keepdims=False):
    return sm.logsumexp(a, axis, weights=b, keepdims=keepdims)


def pytest_configure(config):
    for ours in (softmax, log_softmax, logsumexp):
        theirs = getattr(scipy.special, ours.__name__)
        xp_capabilities_table[ours] = xp_capabilities_table[theirs]
        setattr(scipy.special, ours.__name__, ours)


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if item.name.startswith(LEFT_OUT) or is_complex(item)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def is_complex(item):
    parameters = getattr(item, "callspec", None) and item.callspec.params.values()
    return any(isinstance(p, complex) or str(p).startswith("complex") for p in parameters or ())
