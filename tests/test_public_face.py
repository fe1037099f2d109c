"""The promises of the public face: its names, signatures and docstrings, and what goes in and comes out."""

import inspect
import itertools
import pathlib
import re
from functools import partial

import numpy as np
import pytest
from cases import FUNCTIONS, LOSSES, every_function

import softmaxes as sm
from softmaxes import _functions, _primals, _rules, derivatives, losses, online

DERIVATIVES = {name: getattr(sm, name) for name in derivatives.__all__}
PUBLIC = {name: getattr(sm, name) for name in sm.__all__}
PUBLIC |= {f"online.{name}": getattr(online, name) for name in online.__all__}
every_name = pytest.mark.parametrize("name", PUBLIC)

SIGNATURES = {
    "softmax": "(x, /, axis=-1, *, where=None, temperature=None)",
    "log_softmax": "(x, /, axis=-1, *, where=None, temperature=None)",
    "logsumexp": "(x, /, axis=None, *, where=None, weights=None, keepdims=False)",
    "linear_cross_entropy": (
        "(features, weights, labels, /, *, bias=None, where=None, label_smoothing=0.0, tile_bytes=None)"
    ),
    "jvp": "(function, x, v, /, *rest, argnames=None, **options)",
    "vjp": "(function, x, /, *rest, argnames=None, **options)",
    "jacobian": "(function, x, /, *rest, **options)",
    "hvp": "(function, x, v, /, *rest, argnames=None, **options)",
    "cross_entropy": "(logits, labels, /, axis=-1, *, where=None, label_smoothing=0.0)",
    "kl_divergence": "(p_logits, q_logits, /, axis=-1, *, where=None)",
    "entropy": "(logits, /, axis=-1, *, where=None)",
    "online.State": "(maximum, rest, rest_low, mean=None, mean_low=None)",
    "online.empty": "(shape=(), *, mean_shape=None, dtype=None, device=None, xp=None)",
    "online.expectation": "(state, /)",
    "online.logsumexp": "(state, /)",
    "online.merge": "(a, b, /)",
    "online.softmax": "(x, state, /, axis=-1, *, where=None)",
    "online.update": "(state, x, /, axis=-1, *, where=None, values=None)",
}
SECTIONS = ["Parameters", "Returns", "Raises", "See Also", "Notes", "References", "Examples"]
FIELDS = ["Attributes", "See Also", "Notes", "References", "Examples"]


# Names ----------------------------------------------------------------------------------------------------------------


def test_all_is_sorted_and_complete():
    assert online.__all__ == sorted(online.__all__)
    assert PUBLIC.keys() == SIGNATURES.keys()
    assert sm.__all__ == sorted(sm.__all__)
    modules = {name for name, value in vars(sm).items() if inspect.ismodule(value)}
    assert {name for name in vars(sm) if not name.startswith("_")} - modules == set(sm.__all__)


def test_every_public_name_is_defined_in_one_public_place():
    modules = (_functions, derivatives, losses)
    assert sorted(name for module in modules for name in module.__all__) == sm.__all__
    for module in modules:
        assert all(getattr(sm, name) is getattr(module, name) for name in module.__all__)


def test_every_function_has_a_formula_and_a_rule_of_its_name():
    of_scores = set(_functions.__all__ + losses.__all__) - {"linear_cross_entropy"}
    assert of_scores <= set(_primals.__all__)
    for name in _primals.__all__:
        assert getattr(_rules, name).primal is getattr(_primals, name)


def test_every_function_has_a_row_in_the_table_of_cases():
    assert {name: getattr(sm, name) for name in _functions.__all__} == FUNCTIONS
    of_scores = set(losses.__all__) - {"linear_cross_entropy"}
    assert {case.function.__name__ for case in LOSSES.values()} == of_scores


def test_types_are_shipped():
    assert (pathlib.Path(sm.__file__).parent / "py.typed").exists()


# Signatures -----------------------------------------------------------------------------------------------------------


@every_name
def test_signature(name):
    signature = inspect.signature(PUBLIC[name])
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == SIGNATURES[name]


@every_name
def test_every_argument_and_result_is_annotated(name):
    signature = inspect.signature(PUBLIC[name])
    annotations = [p.annotation for p in signature.parameters.values()]
    if inspect.isfunction(PUBLIC[name]):  # a class returns itself
        annotations.append(signature.return_annotation)
    assert inspect.Signature.empty not in annotations


@every_function
def test_scores_are_positional_only_and_options_keyword_only(function):
    x = np.ones(3)
    with pytest.raises(TypeError, match="positional-only"):
        function(x=x)
    with pytest.raises(TypeError, match="positional argument"):
        function(x, -1, None)


@every_function
def test_axis_is_the_second_argument_as_einops_calls_it(backend, function):
    # einops.reduce(x, "b h q k -> b h q", f) calls f(x, (3,)).
    x = backend.asarray(np.random.default_rng(1).normal(size=(2, 3, 4)))
    for axis in ((2,), (0, 2)):
        expected, actual = function(x, axis=axis), function(x, axis)
        assert expected.shape == actual.shape
        assert np.array_equal(backend.to_numpy(expected), backend.to_numpy(actual))


# Docstrings -----------------------------------------------------------------------------------------------------------


@every_name
def test_docstring_has_all_sections_in_order(name):
    doc = inspect.getdoc(PUBLIC[name])
    sections = SECTIONS if inspect.isfunction(PUBLIC[name]) else FIELDS
    assert re.findall(r"^([A-Z][A-Za-z ]+)\n-{3,}$", doc, re.MULTILINE) == sections


@every_name
def test_docstring_opens_with_an_imperative_line_and_the_formula(name):
    summary, formula = inspect.getdoc(PUBLIC[name]).split("\n\n")[:2]
    assert re.fullmatch(r"(Map|Return|Hold) [^\n]+\.", summary)
    assert formula.startswith(".. math::")


@every_name
def test_docstring_tells_of_every_parameter(name):
    parameters = section(name, "Parameters" if inspect.isfunction(PUBLIC[name]) else "Attributes")
    for parameter in inspect.signature(PUBLIC[name]).parameters.values():
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        assert re.search(
            rf"^(\w+, )*{re.escape(stars + parameter.name)}(, \w+)* : ", parameters, re.MULTILINE
        )


@pytest.mark.parametrize("name", sm.__all__)
def test_docstring_states_shapes_jacobian_source_and_an_example(name):
    assert "shape" in section(name, "Parameters") + section(name, "Returns")
    assert re.search(r"Jacobian|Hessian", section(name, "Notes"))
    assert "doi:10." in section(name, "References")
    assert ">>> import softmaxes as sm" in section(name, "Examples")


@pytest.mark.parametrize("name", [f"online.{name}" for name in online.__all__])
def test_docstring_of_online_states_the_source_and_an_example(name):
    assert "doi:10." in section(name, "References")
    assert ">>> from softmaxes import online" in section(name, "Examples")


@pytest.mark.parametrize("name", [*FUNCTIONS, *losses.__all__])
def test_docstring_states_units_range_and_special_values(name):
    assert re.search(r"in nats|in \[0, 1\]", section(name, "Returns"))
    for special in ("-inf", "+inf", "NaN", "0-d"):
        assert special in section(name, "Notes")


def section(name, title):
    doc = inspect.getdoc(PUBLIC[name])
    return re.split(rf"^{title}\n-+\n", doc, flags=re.MULTILINE)[1].split("\n\n" + _next(title))[0]


def _next(title):
    following = dict(itertools.pairwise([*FIELDS, "\0"])) | dict(
        itertools.pairwise([*SECTIONS, "\0"])
    )
    return following[title]


# In and out -----------------------------------------------------------------------------------------------------------


def results(function, x, **options):
    """Return everything that comes of x: the value and the derivatives."""
    y, dy = sm.jvp(function, x, x, **options)
    z, pullback = sm.vjp(function, x, **options)
    rest = pullback(y), sm.jacobian(function, x, **options), sm.hvp(function, x, x, **options)
    return (function(x, **options), y, dy, z, *rest)


@every_function
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_type_and_dtype_come_out_as_they_went_in(backend, function, dtype):
    if not backend.has(dtype):
        pytest.skip(f"{backend.name} has no {dtype}")
    x = backend.asarray([[1, 2, 3], [4, 5, 6]], dtype)
    for y in backend.run(results, function, x):
        # As in NumPy's own functions: a scalar, of the same dtype, where no axis is left.
        scalar = backend.xp is np and y.ndim == 0
        assert type(y) is (x.dtype.type if scalar else type(x))
        assert y.dtype == x.dtype


@every_function
def test_shape(backend, function):
    shape = (2, 3, 4)
    x = backend.asarray(np.ones(shape))
    for axis, reduced in ((0, (3, 4)), (-1, (2, 3)), ((0, 2), (3,)), ((-1, 1), (2,)), (None, ())):
        expected = reduced if function is sm.logsumexp else shape
        assert backend.run(function, x, axis=axis).shape == expected


@every_function
def test_shape_of_the_jacobian_is_that_of_the_value_and_then_of_x(backend, function):
    x = backend.asarray(np.ones((2, 3, 4)))
    expected = (3,) if function is sm.logsumexp else (2, 3, 4)
    assert backend.run(sm.jacobian, function, x, axis=(0, 2)).shape == (*expected, 2, 3, 4)


def test_keepdims_leaves_the_axes_with_length_1(backend):
    x = backend.asarray(np.ones((2, 3, 4)))
    for axis, shape in ((0, (1, 3, 4)), ((0, 2), (1, 3, 1)), (None, (1, 1, 1)), ((), (2, 3, 4))):
        y = backend.run(sm.logsumexp, x, axis=axis, keepdims=True)
        assert y.shape == shape


def test_weights_broadcast_with_x(backend):
    x, weights = backend.asarray(np.ones((2, 1, 3))), backend.asarray(np.ones((5, 1, 4, 1)))
    y = backend.run(sm.logsumexp, x, weights=weights, axis=-1)
    assert y.shape == (5, 2, 4)
    assert backend.run(sm.jacobian, sm.logsumexp, x, weights=weights, axis=-1).shape == (
        5,
        2,
        4,
        2,
        1,
        3,
    )
    assert backend.run(sm.hvp, sm.logsumexp, x, x, weights=weights, axis=-1).shape == (2, 1, 3)


@every_function
def test_the_device_is_kept(function):
    strict = pytest.importorskip("array_api_strict")
    device = strict.Device("device1")
    x = strict.asarray([[1.0, 2.0, 3.0]], device=device)
    option = "weights" if function is sm.logsumexp else "temperature"
    for value in (2.0, [1.0, 2.0, 3.0], strict.asarray(2.0, device=device)):
        for y in results(function, x, where=[True, False, True], **{option: value}):
            assert y.device == device
    empty = strict.zeros((2, 0), device=device)
    assert function(empty, -1).device == device


@every_function
def test_inputs_are_left_alone(backend, function):
    x = np.random.default_rng(2).normal(size=(3, 4))
    where = x > -1
    option = "weights" if function is sm.logsumexp else "temperature"
    given = {"x": x, "where": where, option: np.abs(x)}
    arrays = {name: backend.asarray(a, a.dtype) for name, a in given.items()}
    backend.run(results, function, arrays["x"], where=arrays["where"], **{option: arrays[option]})
    for name, a in given.items():
        assert np.array_equal(a, backend.to_numpy(arrays[name]))


@every_function
def test_the_result_shares_no_memory_with_the_input(function):
    for x in (np.ones((3, 4)), np.ones(1), np.float64(1.0).reshape(())):
        for axis in (None, -1, ()):
            assert not np.shares_memory(x, function(x, axis))


@every_function
@pytest.mark.parametrize(
    "x", [[1, 2, 3], (1.0, 2.0, 3.0), [[1.0], [2.0]], 1.5, 2, True, np.float32(2)]
)
def test_lists_and_numbers_become_arrays_of_numpy(function, x):
    expected, actual = function(np.asarray(x)), function(x)
    assert isinstance(actual, np.ndarray if actual.ndim else np.floating)
    assert actual.dtype == expected.dtype
    assert np.array_equal(expected, actual)


@every_function
def test_options_may_be_lists(backend, function):
    x = backend.asarray([[1, 2, 3], [4, 5, 6]])
    where, scale = [True, False, True], [[1.0], [2.0]]
    option = "weights" if function is sm.logsumexp else "temperature"
    arrays = {"where": backend.asarray(where, "bool"), option: backend.asarray(scale)}
    expected = backend.to_numpy(function(x, **arrays))
    assert np.array_equal(expected, backend.to_numpy(function(x, where=where, **{option: scale})))


@every_function
@pytest.mark.parametrize("number", [2, 2.0, True, np.float64(2), np.int64(2)], ids=type)
def test_numbers_do_not_promote(backend, function, number):
    x = backend.asarray([1, 2, 3], "float32")
    option = "weights" if function is sm.logsumexp else "temperature"
    assert backend.run(function, x, **{option: number}).dtype == x.dtype


@every_function
@pytest.mark.parametrize(
    "view",
    [
        np.asfortranarray,
        lambda a: a[::-1, ::-2],
        lambda a: a.T,
        lambda a: a.astype(">f8"),
        partial(np.broadcast_to, shape=(3, 4, 6)),
    ],
    ids=["Fortran", "strided", "transposed", "big-endian", "broadcast"],
)
def test_memory_layout_does_not_matter(function, view):
    x = view(np.random.default_rng(3).normal(size=(4, 6)))
    copy = np.array(x, order="C", dtype=float)
    for axis in (0, -1, None):
        assert np.array_equal(function(copy, axis), function(x, axis))


def test_derivatives_hand_positional_arguments_on(backend):
    x = backend.asarray(np.random.default_rng(4).normal(size=(2, 3)))
    by_name = backend.run(sm.jvp, sm.softmax, x, x, axis=0)
    by_position = backend.run(sm.jvp, sm.softmax, x, x, 0)
    for expected, actual in zip(by_name, by_position, strict=True):
        assert np.array_equal(backend.to_numpy(expected), backend.to_numpy(actual))
