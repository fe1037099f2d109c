"""A stand-in for CuPy: an array library with NumPy's protocols that mixes with no array of NumPy."""

from types import ModuleType

import array_api_compat.numpy as compat
import numpy as np


class ForeignArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that NumPy's functions take, and that refuses to become one of NumPy."""

    def __init__(self, a):
        self.a = a

    def __array__(self, *arguments, **options):
        raise TypeError("an array was converted to NumPy")

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return foreign(getattr(ufunc, method))(*inputs, **options)

    def __array_function__(self, function, types, arguments, options):
        return foreign(function)(*arguments, **options)

    def __array_namespace__(self, api_version=None):
        return namespace

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self.a, name)
        return foreign(value) if callable(value) else wrapped(value)

    def __getitem__(self, key):
        return wrapped(self.a[unwrapped(key)])

    def __len__(self):
        return len(self.a)

    def __bool__(self):
        return bool(self.a)

    def __reduce__(self):
        return ForeignArray, (self.a,)


def foreign(function):
    """Return a function of NumPy as one of the stand-in's arrays."""

    def f(*arguments, **options):
        return wrapped(function(*unwrapped(arguments), **unwrapped(options)))

    return f


def wrapped(a):
    if isinstance(a, (list, tuple)):
        return type(a)(map(wrapped, a)) if type(a) in (list, tuple) else a
    return ForeignArray(np.asarray(a)) if isinstance(a, (np.ndarray, np.generic)) else a


def unwrapped(a):
    if isinstance(a, dict):
        return {name: unwrapped(value) for name, value in a.items()}
    if isinstance(a, (list, tuple)):
        return type(a)(map(unwrapped, a))
    if isinstance(a, np.ndarray):
        raise TypeError("an array of NumPy was mixed in")
    return a.a if isinstance(a, ForeignArray) else a


class Namespace(ModuleType):
    """The functions of array-api-compat for NumPy, of these arrays."""

    def __getattr__(self, name):
        value = getattr(compat, name)
        return foreign(value) if callable(value) and not isinstance(value, type) else value

    @staticmethod
    def asarray(a, /, **options):
        """Make an array, here alone also of one of NumPy."""
        return wrapped(compat.asarray(a.a if isinstance(a, ForeignArray) else a, **options))


namespace = Namespace("foreign")
