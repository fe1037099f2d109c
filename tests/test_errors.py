"""Bad input gets the right exception, in words that name the argument, what it was and what was expected."""

import inspect
from fractions import Fraction
from functools import partial

import ml_dtypes
import numpy as np
import pytest
from cases import FUNCTIONS, every_function

import softmaxes as sm

X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
NAN, INF = np.nan, np.inf


class Unknown:
    pass


class Named:
    """Stands in for an array of xarray, which is known by its module."""


Named.__module__ = "xarray.core.dataarray"

# What x must not be: the exception, what it was, what was expected.
BAD_X = {
    "None": (None, TypeError, "NoneType", "an array, a sequence of numbers or a number"),
    "string": ("1.0", TypeError, "str", "an array, a sequence of numbers or a number"),
    "dict": ({0: 1.0}, TypeError, "dict", "an array, a sequence of numbers or a number"),
    "object": (Unknown(), TypeError, "Unknown", "an array, a sequence of numbers or a number"),
    "array with named axes": (
        Named(),
        TypeError,
        "xarray.core.dataarray.Named",
        "through xarray.apply_ufunc, or hand over the .data",
    ),
    "iterator": (
        iter([1.0, 2.0]),
        TypeError,
        "iterator",
        "an array, a sequence of numbers or a number",
    ),
    "masked array": (np.ma.array(X), TypeError, "MaskedArray", "an array, a sequence"),
    "list of strings": (["1.0"], TypeError, "<U3", "real"),
    "list with None": ([1.0, None], TypeError, "object", "real"),
    "ragged list": (
        [[1.0, 2.0], [3.0]],
        ValueError,
        "inhomogeneous",
        "rectangular sequence of numbers",
    ),
    "array of objects": (X.astype(object), TypeError, "object", "real"),
    "array of strings": (X.astype(str), TypeError, "<U32", "real"),
    "array of int4": (X.astype(ml_dtypes.int4), TypeError, "int4", "real"),
    "huge number": (10**400, ValueError, "x", "fit in float64"),
    "list of objects": ([Unknown()], TypeError, "object", "real"),
    "array of dates": (X.astype("M8[D]"), TypeError, "datetime64", "real"),
    "complex array": (X * 1j, TypeError, "complex128", "real"),
    "complex number": (1j, TypeError, "1j", "real"),
    "list of complex": ([1j], TypeError, "complex128", "real"),
}

BAD_OPTIONS = {
    "axis": {
        "too large": (2, ValueError, "axis 2", "2 axes"),
        "too small": (-3, ValueError, "axis -3", "2 axes"),
        "too large in a tuple": ((0, 2), ValueError, "(0, 2)", "2 axes"),
        "repeated": ((1, 1), ValueError, "(1, 1)", "not repeat"),
        "repeated from the end": ((1, -1), ValueError, "(1, -1)", "not repeat"),
        "float": (1.0, TypeError, "1.0", "an int, a tuple of ints or None"),
        "float in a tuple": ((0, 1.0), TypeError, "(0, 1.0)", "an int, a tuple of ints or None"),
        "None in a tuple": ((None,), TypeError, "(None,)", "an int, a tuple of ints or None"),
        "list": ([0, 1], TypeError, "[0, 1]", "an int, a tuple of ints or None"),
        "string": ("0", TypeError, "'0'", "an int, a tuple of ints or None"),
    },
    "where": {
        "int": (1, TypeError, "1", "bool"),
        "float": (1.0, TypeError, "1.0", "bool"),
        "string": ("True", TypeError, "str", "bool"),
        "list of ints": ([1, 0, 1], TypeError, "int64", "bool"),
        "list with None": ([True, None, True], TypeError, "object", "bool"),
        "ints": (np.array([1, 0, 1]), TypeError, "int64", "bool"),
        "floats": (np.ones(3), TypeError, "float64", "bool"),
        "masked array": (np.ma.array([True] * 3), TypeError, "MaskedArray", "bool"),
        "ragged list": ([[True], []], ValueError, "inhomogeneous", "rectangular"),
        "too short": (np.array([True, False]), ValueError, "(2,)", "x of shape (2, 3)"),
        "too many axes": (np.ones((4, 2, 3), bool), ValueError, "(4, 2, 3)", "x of shape (2, 3)"),
        "another axis": (np.ones((1, 2, 3), bool), ValueError, "(1, 2, 3)", "x of shape (2, 3)"),
    },
    "temperature": {
        "huge": (10**400, ValueError, "temperature", "fit in float64"),
        "time": (np.timedelta64(3, "s"), TypeError, "timedelta64", "real"),
        "negative": (-1, ValueError, "-1", "[0, inf]"),
        "-inf": (-INF, ValueError, "-inf", "[0, inf]"),
        "NaN": (NAN, ValueError, "nan", "[0, inf]"),
        "negative somewhere": (np.array([1.0, 2.0, -3.0]), ValueError, "-3.", "[0, inf]"),
        "NaN in a list": ([[1.0], [NAN]], ValueError, "nan", "[0, inf]"),
        "string": ("hot", TypeError, "str", "a number"),
        "complex number": (1j, TypeError, "1j", "real"),
        "complex array": (np.array(1j), TypeError, "complex128", "real"),
        "array of objects": (np.array(None), TypeError, "object", "real"),
        "ragged list": (
            [[1.0], []],
            ValueError,
            "inhomogeneous",
            "rectangular sequence of numbers",
        ),
        "too short": (np.ones(2), ValueError, "(2,)", "x of shape (2, 3)"),
        "too many axes": (np.ones((4, 2, 3)), ValueError, "(4, 2, 3)", "x of shape (2, 3)"),
    },
    "weights": {
        "subnormal": (1e-310, ValueError, "1e-310", "normal float64 number"),
        "string": ("heavy", TypeError, "str", "a number"),
        "complex number": (1j, TypeError, "1j", "real"),
        "complex array": (np.array(1j), TypeError, "complex128", "real"),
        "array of objects": (np.array(None), TypeError, "object", "real"),
        "ragged list": (
            [[1.0], []],
            ValueError,
            "inhomogeneous",
            "rectangular sequence of numbers",
        ),
        "too short": (np.ones(2), ValueError, "(2,)", "x of shape (2, 3)"),
    },
    "keepdims": {
        "string": ("yes", TypeError, "'yes'", "bool"),
        "None": (None, TypeError, "None", "bool"),
        "array": (np.array([True, False]), TypeError, "[", "bool"),
    },
}

# Tangents and cotangents of the wrong kind.
BAD_VECTOR = {
    "None": (None, TypeError, "None", "(2, 3)"),
    "string": ("up", TypeError, "str", "an array"),
    "number": (1.0, ValueError, "()", "(2, 3)"),
    "too few axes": (np.ones(3), ValueError, "(3,)", "(2, 3)"),
    "too many axes": (np.ones((1, 2, 3)), ValueError, "(1, 2, 3)", "(2, 3)"),
    "transposed": (X.T, ValueError, "(3, 2)", "(2, 3)"),
    "complex number": (1j, TypeError, "1j", "real"),
    "complex array": (X * 1j, TypeError, "complex128", "real"),
    "array of objects": (X.astype(object), TypeError, "object", "real"),
    "ragged list": ([[1.0], []], ValueError, "inhomogeneous", "rectangular sequence of numbers"),
}


def _calls():
    """Every way to hand x and options to the package, by name."""
    for name, function in FUNCTIONS.items():
        yield name, function, function
        yield (
            f"jvp of {name}",
            function,
            lambda x, f=function, **options: sm.jvp(f, x, X, **options),
        )
        yield f"vjp of {name}", function, partial(sm.vjp, function)
        yield f"jacobian of {name}", function, partial(sm.jacobian, function)
        yield (
            f"hvp of {name}",
            function,
            lambda x, f=function, **options: sm.hvp(f, x, X, **options),
        )


@pytest.mark.parametrize("bad", BAD_X.values(), ids=BAD_X)
@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, _, call in _calls()])
def test_x(call, bad):
    x, error, was, expected = bad
    refused(partial(call, x), error, "x", was, expected)


@pytest.mark.parametrize(
    ("call", "option", "bad"),
    [
        pytest.param(call, option, bad, id=f"{name}, {option}, {what}")
        for name, function, call in _calls()
        for option, table in BAD_OPTIONS.items()
        if option in inspect.signature(function).parameters
        for what, bad in table.items()
    ],
)
def test_option(call, option, bad):
    value, error, was, expected = bad
    refused(partial(call, X, **{option: value}), error, option, was, expected)


@pytest.mark.parametrize("bad", BAD_VECTOR.values(), ids=BAD_VECTOR)
@pytest.mark.parametrize("derivative", [sm.jvp, sm.hvp])
def test_tangent(derivative, bad):
    v, error, was, expected = bad
    refused(partial(derivative, sm.softmax, X, v), error, "v", was, expected)


@pytest.mark.parametrize("bad", BAD_VECTOR.values(), ids=BAD_VECTOR)
def test_cotangent(bad):
    u, error, was, expected = bad
    refused(partial(sm.vjp(sm.softmax, X)[1], u), error, "u", was, expected)


@pytest.mark.parametrize(
    ("options", "shape"),
    [({}, "()"), ({"axis": 0}, "(3,)"), ({"axis": 0, "keepdims": True}, "(1, 3)")],
)
def test_cotangent_has_the_shape_of_the_value(options, shape):
    pullback = sm.vjp(sm.logsumexp, X, **options)[1]
    refused(partial(pullback, np.ones(5)), ValueError, "u", "(5,)", shape)


@pytest.mark.parametrize("function", [np.exp, len, "softmax", None, sm.jvp, lambda x: x])
@pytest.mark.parametrize("derivative", [sm.jvp, sm.vjp, sm.jacobian, sm.hvp])
def test_function_without_a_rule(derivative, function):
    arrays = (X, X) if derivative in {sm.jvp, sm.hvp} else (X,)
    refused(
        partial(derivative, function, *arrays),
        TypeError,
        "function",
        repr(function),
        "one of log_softmax, logsumexp, softmax",
    )


@pytest.mark.parametrize("call", [pytest.param(call, id=name) for name, _, call in _calls()])
@pytest.mark.parametrize("keyword", ["dim", "b", "x", "axes"])
def test_unknown_keyword(call, keyword):
    with pytest.raises(TypeError, match=f"'{keyword}'|too many positional"):
        call(X, **{keyword: 0})


def test_an_option_of_another_function_is_unknown():
    for call in (sm.softmax, sm.log_softmax, partial(sm.vjp, sm.softmax)):
        with pytest.raises(TypeError, match="'weights'"):
            call(X, weights=1.0)
    for call in (sm.logsumexp, partial(sm.vjp, sm.logsumexp)):
        with pytest.raises(TypeError, match="'temperature'"):
            call(X, temperature=1.0)


@pytest.mark.parametrize("axis", [1, -2, (0, 0), (0, 1)])
@every_function
def test_a_scalar_has_no_other_axis(function, axis):
    refused(partial(function, 1.0, axis), ValueError, "axis", str(axis), "0 axes")


@pytest.mark.parametrize("option", ["where", "temperature"])
def test_an_option_with_named_axes_is_told_of_apply_ufunc(option):
    call = partial(sm.softmax, X, **{option: Named()})
    refused(call, TypeError, option, "xarray.core.dataarray.Named", "apply_ufunc", ".data")


def test_what_xarray_makes_is_known_by_its_module():
    xarray = pytest.importorskip("xarray")
    a = xarray.DataArray(X, dims=("row", "class"))
    for named in (a, a.variable, a.to_dataset(name="scores")):
        refused(partial(sm.softmax, named), TypeError, "x", type(named).__name__, "apply_ufunc")
    np.testing.assert_array_equal(sm.softmax(a.data), sm.softmax(X))


@pytest.mark.parametrize(("option", "good", "bad"), [("axis", 1, 1.0), ("keepdims", True, 1)])
def test_what_equals_a_good_option_is_refused_after_it(option, good, bad):
    sm.logsumexp(X, **{option: good})
    refused(partial(sm.logsumexp, X, **{option: bad}), TypeError, option, str(bad))


def test_numbers_of_python_that_numpy_keeps_as_objects_are_real():
    np.testing.assert_array_equal(sm.softmax([10**20, Fraction(1, 2)]), [1, 0])
    np.testing.assert_array_equal(sm.softmax([0.0, 1.0], temperature=Fraction(0)), [0, 1])


def test_dtypes_that_numpy_does_not_promote_are_named():
    x, t = X.astype(ml_dtypes.bfloat16), np.ones(3, dtype=np.float16)
    call = partial(sm.softmax, x, temperature=t)
    try:
        promoted = np.result_type(x, t)
    except TypeError:  # before ml_dtypes 0.7
        refused(call, TypeError, "x of bfloat16", "temperature of")
    else:
        assert call().dtype == promoted


def test_dtypes_that_jax_does_not_promote_are_named():
    jnp = pytest.importorskip("jax.numpy")
    x, t = jnp.asarray(X, "float8_e4m3fn"), jnp.ones(3, "float8_e5m2")
    call = partial(sm.softmax, x, temperature=t)
    refused(call, TypeError, "x of float8_e4m3fn", "temperature of float8_e5m2")
    call = partial(sm.cross_entropy, x, jnp.ones((2, 3), "float32"))
    refused(call, TypeError, "logits of float8_e4m3fn", "labels of float32")


def test_a_list_of_traced_numbers_is_refused():
    jax = pytest.importorskip("jax")
    call = jax.jit(lambda x: sm.softmax([x[0], x[1]]))
    refused(partial(call, np.ones(2)), TypeError, "x must be an array or a sequence of numbers")


# In every library -----------------------------------------------------------------------------------------------------


@every_function
def test_every_library_hears_the_same(backend, function):
    x = backend.asarray(X)
    run = partial(backend.run, function, x)
    shape = str((2, 4))
    refused(partial(run, axis=2), ValueError, "axis", "2", "2 axes")
    refused(partial(run, where=backend.asarray(X)), TypeError, "where", "float64", "bool")
    wide = backend.asarray(np.ones((2, 4)), "bool")
    refused(partial(run, where=wide), ValueError, "where", shape, "x of shape (2, 3)")
    option = "weights" if function is sm.logsumexp else "temperature"
    wide = backend.asarray(np.ones((2, 4)))
    refused(partial(run, **{option: wide}), ValueError, option, shape, "x of shape (2, 3)")
    imaginary = backend.asarray(X * 1j, "complex128")
    refused(partial(run, **{option: imaginary}), TypeError, option, "complex128", "real")
    refused(partial(backend.run, function, imaginary), TypeError, "x", "complex128", "real")
    refused(partial(backend.run, sm.jvp, function, x, wide), ValueError, "v", shape, "(2, 3)")
    refused(
        partial(backend.run, sm.hvp, function, x, imaginary), TypeError, "v", "complex128", "real"
    )


NAMES = {
    "numpy": "numpy",
    "strict": "array_api_strict",
    "jax": "jax.numpy",
    "torch": "torch",
    "dask": "dask.array",
    "cupy": "cupy",
}


@pytest.mark.parametrize("option", ["where", "temperature", "weights", "v"])
def test_arrays_of_two_libraries_are_refused(backend, option):
    strict = pytest.importorskip("array_api_strict")
    other, name = (strict, "array_api_strict") if backend.xp is np else (np, "numpy")
    x, alien = backend.asarray(X), other.asarray(X > 0 if option == "where" else X)
    if option == "v":
        call = partial(backend.run, sm.jvp, sm.softmax, x, alien)
    else:
        call = partial(
            backend.run, sm.logsumexp if option == "weights" else sm.softmax, x, **{option: alien}
        )
    refused(call, TypeError, option, name, "one library", NAMES[backend.name.partition("-")[0]])


# Calls with a second array `a`, under the name that the message gives the two.
PAIRS = {
    "x and temperature": lambda x, a: sm.softmax(x, temperature=a),
    "x and weights": lambda x, a: sm.logsumexp(x, weights=a),
    "x and where": lambda x, a: sm.log_softmax(x, where=a > 0),
    "x and v": lambda x, a: sm.jvp(sm.softmax, x, a),
    "x and u": lambda x, a: sm.vjp(sm.softmax, x)[1](a),
    "logits and labels": sm.cross_entropy,
    "p_logits and q_logits": sm.kl_divergence,
    "features and weights": lambda x, a: sm.linear_cross_entropy(x, a, [0, 1]),
}
every_pair = pytest.mark.parametrize(("names", "call"), PAIRS.items(), ids=PAIRS)


@every_pair
def test_arrays_on_two_devices_are_refused(names, call):
    xp = pytest.importorskip("array_api_strict")
    x, a = xp.asarray(X), xp.asarray(X, device=xp.Device("device1"))
    refused(partial(call, x, a), ValueError, names, "one device", "CPU_DEVICE", "device1")


@every_pair
def test_tensors_on_two_devices_are_refused(torch, names, call):
    x = torch.ones(2, 3)
    refused(partial(call, x, x.to("meta")), ValueError, names, "one device, got cpu and meta")


@every_pair
def test_arrays_that_jax_may_not_move_are_refused(jax, names, call):
    here, there = (jax.device_put(X, device) for device in jax.devices()[:2])
    refused(partial(call, here, there), ValueError, names, "one device, got", "cpu:0 and", "cpu:1")


def test_what_jax_may_move_or_has_on_several_devices_is_taken(jax):
    there = jax.device_put(X, jax.devices()[1])
    mesh = jax.sharding.Mesh(jax.devices()[:2], ("i",))
    spread = (jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(a)) for a in ("i", None))
    pairs = (jax.numpy.asarray(X), there), (jax.device_put(X, device) for device in spread)
    for x, temperature in pairs:
        y = sm.softmax(x, temperature=temperature)
        np.testing.assert_allclose(y, sm.softmax(X, temperature=X), rtol=1e-14)


@every_pair
def test_a_tensor_that_needs_grad_is_not_taken_for_an_array_of_numpy(torch, names, call):
    tensor = torch.ones(2, 3, requires_grad=True)
    refused(partial(call, X, tensor), TypeError, names, "one library, got numpy and torch")
    refused(partial(call, tensor, X), TypeError, names, "one library, got torch and numpy")


def test_a_list_of_tensors_that_need_grad_is_refused(torch):
    rows = list(torch.ones(2, 3, requires_grad=True))
    refused(partial(sm.softmax, rows), TypeError, "x must be an array", "Tensor that requires grad")


def test_an_array_of_objects_in_dask_is_refused():
    da = pytest.importorskip("dask.array")
    x = da.from_array(X, chunks=(1, 3))
    objects = x.astype(object)
    refused(partial(sm.softmax, objects), TypeError, "x must be real, got dtype object")
    refused(partial(sm.softmax, x, temperature=objects), TypeError, "temperature must be real")
    refused(partial(sm.softmax, x, where=objects), TypeError, "where must be bool", "object")


# The losses -----------------------------------------------------------------------------------------------------------

BAD_LABELS = {
    "None": (None, TypeError, "NoneType", "an array, a sequence of numbers or a number"),
    "string": ("first", TypeError, "str", "an array"),
    "booleans": ([True, False], TypeError, "bool", "integer or real floating"),
    "complex": (X * 1j, TypeError, "complex128", "integer or real floating"),
    "ragged list": ([[1.0], []], ValueError, "inhomogeneous", "rectangular"),
    "too few": ([0], ValueError, "(1,)", "(2,)"),
    "one for all": (0, ValueError, "()", "(2,)"),
    "integers like the scores": (np.ones((2, 3), int), ValueError, "(2, 3)", "(2,)"),
    "floats without the classes": (np.ones(2), ValueError, "(2,)", "(2, 3)"),
    "floats that broadcast": (np.ones((1, 3)), ValueError, "(1, 3)", "(2, 3)"),
    "too large": ([0, 3], ValueError, "3", "0 to 2"),
    "negative": ([-1, 0], ValueError, "-1", "0 to 2"),
}

BAD_SMOOTHING = {
    "negative": (-0.1, ValueError, "-0.1", "[0, 1]"),
    "too large": (1.5, ValueError, "1.5", "[0, 1]"),
    "NaN": (NAN, ValueError, "nan", "[0, 1]"),
    "None": (None, TypeError, "None", "a number"),
    "string": ("some", TypeError, "str", "a number"),
    "array": (np.array([0.1, 0.2]), TypeError, "array", "a number"),
}

LOSS_CALLS = {
    "cross_entropy": ("logits", lambda x, **options: sm.cross_entropy(x, [0, 1], **options)),
    "vjp of cross_entropy": (
        "logits",
        lambda x, **options: sm.vjp(sm.cross_entropy, x, [0, 1], **options),
    ),
    "kl_divergence": ("p_logits", lambda x, **options: sm.kl_divergence(x, X, **options)),
    "entropy": ("logits", sm.entropy),
}
every_loss_call = pytest.mark.parametrize(("name", "call"), LOSS_CALLS.values(), ids=LOSS_CALLS)


@pytest.mark.parametrize("bad", BAD_LABELS.values(), ids=BAD_LABELS)
@pytest.mark.parametrize("call", [sm.cross_entropy, partial(sm.jacobian, sm.cross_entropy)])
def test_labels(call, bad):
    labels, error, was, expected = bad
    refused(partial(call, X, labels), error, "labels", was, expected)


@pytest.mark.parametrize("bad", BAD_SMOOTHING.values(), ids=BAD_SMOOTHING)
def test_label_smoothing(bad):
    value, error, was, expected = bad
    call = partial(sm.cross_entropy, X, [0, 1], label_smoothing=value)
    refused(call, error, "label_smoothing", was, expected)


@pytest.mark.parametrize("bad", BAD_X.values(), ids=BAD_X)
@every_loss_call
def test_scores_of_a_loss(name, call, bad):
    x, error, was, expected = bad
    refused(partial(call, x), error, name, name if was == "x" else was, expected)


@pytest.mark.parametrize("bad", BAD_X.values(), ids=BAD_X)
def test_scores_of_the_other_distribution(bad):
    x, error, was, expected = bad
    was = was if was != "x" else "q_logits"
    refused(partial(sm.kl_divergence, X, x), error, "q_logits", was, expected)


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        pytest.param(option, bad, id=f"{option}, {what}")
        for option in ("axis", "where")
        for what, bad in BAD_OPTIONS[option].items()
    ],
)
@every_loss_call
def test_option_of_a_loss(name, call, option, bad):
    value, error, was, expected = bad
    expected = expected.replace("x of shape", f"{name} of shape")
    refused(partial(call, X, **{option: value}), error, option, was, expected)


def test_distributions_that_do_not_broadcast():
    refused(
        partial(sm.kl_divergence, X, X.T), ValueError, "q_logits", "(3, 2)", "p_logits", "(2, 3)"
    )


def test_labels_of_another_library_are_refused(backend):
    strict = pytest.importorskip("array_api_strict")
    other, name = (strict, "array_api_strict") if backend.xp is np else (np, "numpy")
    for labels in (other.asarray([0, 1]), other.asarray(X)):
        call = partial(backend.run, sm.cross_entropy, backend.asarray(X), labels)
        refused(call, TypeError, "logits and labels", "one library", name)
    call = partial(backend.run, sm.kl_divergence, backend.asarray(X), other.asarray(X))
    refused(call, TypeError, "p_logits and q_logits", "one library", name)


def refused(call, error, *words):
    """Assert that the call raises the error, and that its message holds all the words."""
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)
