"""PyTorch differentiates by the rules, in every mode, through every transform, compiled or not."""

import itertools
import math
import re
import subprocess
import sys
import weakref
from functools import partial

import numpy as np
import pytest
from cases import CASES, every_function
from conftest import backend_named, seldom
from regimes import crowded
from ulps import ulp_error

import softmaxes as sm
from softmaxes import online
from softmaxes._cli.budgets import BUDGETS

# Functions of one tensor, or of two, of which the second is positive.
ONE = {
    "softmax": sm.softmax,
    "softmax, two axes": partial(sm.softmax, axis=(0, 1)),
    "log_softmax, axis 0": partial(sm.log_softmax, axis=0),
    "logsumexp": partial(sm.logsumexp, axis=-1),
    "cross_entropy, class numbers": lambda x: sm.cross_entropy(x, x.new_tensor([0, 2]).long()),
    "entropy": sm.entropy,
}
TWO = {
    "log_softmax, one temperature": lambda x, t: sm.log_softmax(x, temperature=t[0, 0]),
    "softmax, temperatures": lambda x, t: sm.softmax(x, temperature=t[:, :1]),
    "softmax, temperature of each entry, mask": lambda x, t: sm.softmax(
        x, where=x > -0.5, temperature=t
    ),
    "logsumexp, weights, mask": lambda x, w: sm.logsumexp(x, -1, where=x > -0.5, weights=w),
    "cross_entropy, soft labels": partial(sm.cross_entropy, label_smoothing=0.1),
    "kl_divergence": sm.kl_divergence,
}
every_call = pytest.mark.parametrize("f", [*ONE.values(), *TWO.values()], ids=[*ONE, *TWO])
every_call_of_one = pytest.mark.parametrize("f", ONE.values(), ids=ONE)


def tensors(torch, f, dtype="float64", **options):
    """Return the arguments of a function of the tables."""
    normal = np.random.default_rng(4).normal(size=(2, 2, 3)).astype(dtype)
    x, t = torch.from_numpy(normal[0]), torch.from_numpy(np.exp(normal[1]))
    return tuple(a.requires_grad_(**options) for a in ((x, t) if f in TWO.values() else (x,)))


def gradients(torch, f, *arguments):
    """Return the value and the gradients of the sum of its sines."""
    y = f(*arguments)
    return y, *torch.autograd.grad(y.sin().sum(), arguments)


def assert_equal(torch, expected, actual):
    """Assert that dtypes, shapes and bits agree; a NaN is a NaN, and 0 is 0."""
    torch.testing.assert_close(tuple(actual), tuple(expected), rtol=0, atol=0, equal_nan=True)


def assert_agree(torch, expected, actual):
    """Assert that each is within the largest of the budgets: NumPy computes what is not compiled."""
    for a, b in zip(expected, actual, strict=True):
        rtol = 2 * max(BUDGETS.values()) * torch.finfo(a.dtype).eps
        torch.testing.assert_close(b, a, rtol=rtol, atol=0, equal_nan=True)


# Modes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Backwards compatibility")  # of the check of undefined gradients
@every_call
def test_derivatives_agree_with_finite_differences_in_both_modes(torch, f):
    assert torch.autograd.gradcheck(
        f,
        tensors(torch, f),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


@every_call
def test_second_derivatives_agree_with_finite_differences_in_both_modes(torch, f):
    assert torch.autograd.gradgradcheck(
        f, tensors(torch, f), check_fwd_over_rev=True, check_undefined_grad=False
    )


@every_function
@pytest.mark.parametrize(
    "modes", list(itertools.product(("jacfwd", "jacrev"), repeat=3)), ids=" ".join
)
def test_every_composition_of_three_modes_keeps_a_confident_row(torch, function, modes):
    f = partial(function, axis=-1)
    for mode in modes:
        f = getattr(torch.func, mode)(f)
    found = f(torch.tensor([20.0, 0, 0]))
    found = found if function is sm.logsumexp else found[0]
    # ∂³y/∂x³ at the top is that of log(1 + 2 e^-x): p (1 - p) (2 p - 1), with its sign, or that of p.
    p, q = 1 / (1 + 2 * np.exp(-20.0)), 2 * np.exp(-20.0) / (1 + 2 * np.exp(-20.0))
    expected = {
        sm.softmax: p * q * (1 - 6 * p * q),
        sm.log_softmax: p * q * (p - q),
        sm.logsumexp: -p * q * (p - q),
    }
    np.testing.assert_allclose(found[0, 0, 0], expected[function], rtol=1e-6)
    np.testing.assert_allclose(found[0, 0].sum(), 0, atol=1e-15)


def test_forward_mode_may_run_under_reverse_mode(torch):
    forward_ad = torch.autograd.forward_ad
    x, v = torch.tensor([20.0, 0, 0], requires_grad=True), torch.tensor([1.0, 0, 0])
    with forward_ad.dual_level():
        dy = forward_ad.unpack_dual(sm.logsumexp(forward_ad.make_dual(x, v))).tangent
        (found,) = torch.autograd.grad(dy, x)
    np.testing.assert_allclose(found, sm.hvp(sm.logsumexp, x.detach(), v), rtol=1e-6)


@pytest.mark.parametrize("rule", ["jvp", "vjp", "hvp"])
def test_a_derivative_by_the_rules_has_a_derivative(torch, rule):
    x, v = torch.tensor([20.0, 0, 0], requires_grad=True), torch.tensor([1.0, 0, 0])
    of = {
        "jvp": lambda: sm.jvp(sm.softmax, x, v)[1],
        "vjp": lambda: sm.vjp(sm.softmax, x)[1](v),
        "hvp": lambda: sm.hvp(sm.logsumexp, x, v),
    }
    (found,) = torch.autograd.grad(of[rule]()[0], x)
    expected = torch.func.hessian(sm.softmax)(x.detach())[0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@every_call
def test_only_what_moves_gets_a_gradient(torch, f):
    arguments = tensors(torch, f, requires_grad=False)
    y = f(*arguments)
    assert y.grad_fn is None
    for i, _ in enumerate(arguments):
        moving = [a.clone().requires_grad_(i == j) for j, a in enumerate(arguments)]
        z = f(*moving)
        z.sum().backward()
        assert_equal(torch, [y], [z])
        assert [a.grad is None for a in moving] == [j != i for j, _ in enumerate(arguments)]


@every_call
def test_inference_mode_changes_no_bit(torch, f):
    arguments = tensors(torch, f)
    with torch.inference_mode():
        y = f(*arguments)
    assert y.is_inference()
    assert_equal(torch, [f(*arguments)], [y])


@every_function
@pytest.mark.parametrize("narrow", ["float16", "bfloat16"])
def test_a_gradient_in_half_precision_is_rounded_once(torch, function, narrow):
    narrow = getattr(torch, narrow)
    rng = np.random.default_rng(8)
    x, u = (torch.from_numpy(rng.normal(scale=3, size=(5, 20))).to(narrow) for _ in range(2))
    u = u[:, 0] if function is sm.logsumexp else u
    found = []
    for dtype in (torch.float32, narrow):
        z = x.to(dtype).requires_grad_()
        found.append(torch.autograd.grad(function(z, -1), z, u.to(dtype))[0])
    assert_equal(torch, [found[0].to(narrow)], [found[1]])


@every_call
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_autocast_changes_neither_bits_nor_dtype(torch, f, dtype):
    arguments = tensors(torch, f, dtype)
    expected = gradients(torch, f, *arguments)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(torch, f, *arguments)
    assert_equal(torch, expected, found)


@every_function
@pytest.mark.parametrize("axis", [1, (2, 3)])
def test_memory_layout_does_not_matter(torch, function, axis):
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 4, 3, 5)))
    layouts = {
        "channels last": x.to(memory_format=torch.channels_last),
        "strided": x.repeat_interleave(2, -1)[..., ::2],
        "transposed": x.mT.contiguous().mT,
        "expanded": x[:1].expand(2, -1, -1, -1),
    }
    for name, view in layouts.items():
        assert name == "expanded" or not view.is_contiguous()
        pairs = [
            gradients(torch, partial(function, axis=axis), a.detach().requires_grad_())
            for a in (view.contiguous(), view)
        ]
        for a, b in zip(*pairs, strict=True):
            np.testing.assert_allclose(a.detach(), b.detach(), rtol=1e-14, atol=1e-15, err_msg=name)


@every_call
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_changes_no_gradient(torch, f, reentrant):
    kept, computed_again = tensors(torch, f), tensors(torch, f)
    f(*kept).sum().backward()
    y = torch.utils.checkpoint.checkpoint(f, *computed_again, use_reentrant=reentrant)
    y.sum().backward()
    assert_equal(torch, [a.grad for a in kept], [a.grad for a in computed_again])


@every_function
@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (1, 2)])
def test_what_is_contiguous_stays_so(torch, function, axis):
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 4, 3, 5))).requires_grad_()
    for y in (*gradients(torch, partial(function, axis=axis), x), function(x.detach(), axis)):
        assert y.is_contiguous()


# Transforms -----------------------------------------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize(
    "transforms", list(itertools.product(("jacfwd", "jacrev", "vmap"), repeat=3)), ids=" ".join
)
def test_every_composition_of_three_transforms_is_that_of_the_plain_function(
    torch, function, transforms
):
    shape = (2,) * transforms.count("vmap") + (3,)
    x = torch.from_numpy(np.random.default_rng(5).normal(size=shape))
    ours, theirs = partial(function, axis=-1), partial(getattr(torch, function.__name__), dim=-1)
    for transform in transforms:
        ours, theirs = (getattr(torch.func, transform)(f) for f in (ours, theirs))
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-11, atol=1e-14)


@every_call_of_one
def test_a_batch_of_what_moves_is_a_loop(torch, f):
    x, v = torch.from_numpy(np.random.default_rng(5).normal(size=(2, 4, 2, 3)))
    batch, loop = torch.func.vmap(f), lambda x: torch.stack(list(map(f, x)))
    forward_ad = torch.autograd.forward_ad
    with forward_ad.dual_level():
        x = forward_ad.make_dual(x, v)
        found, expected = (forward_ad.unpack_dual(g(x)).tangent for g in (batch, loop))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("in_dims", list(itertools.product((None, 0, 1), repeat=3))[1:], ids=str)
def test_vmap_over_any_of_the_arguments_is_a_loop(torch, in_dims):
    rng = np.random.default_rng(6)
    shapes = ([2, 3], [2, 3], [2, 1])  # of x, its mask and its temperatures
    x, mask, t = (
        torch.from_numpy(rng.normal(size=shape if d is None else np.insert(shape, d, 4)))
        for shape, d in zip(shapes, in_dims, strict=True)
    )
    arguments = x, mask > 0, t.exp()

    def gradient(x, where, t):
        return torch.func.grad(
            lambda x, t: (sm.softmax(x, where=where, temperature=t) ** 2).sum(), (0, 1)
        )(x, t)

    found = torch.func.vmap(gradient, in_dims)(*arguments)
    for i in range(4):
        one = (a if d is None else a.select(d, i) for a, d in zip(arguments, in_dims, strict=True))
        for a, b in zip(gradient(*one), found, strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-12, atol=1e-15)


def test_a_temperature_under_vmap_is_not_known(torch):
    x, t = torch.tensor([2.0, 2.0]), torch.tensor([2.0, -1.0])
    y = torch.func.vmap(lambda t: sm.softmax(x, temperature=t))(t)
    np.testing.assert_array_equal(y, [[0.5, 0.5], [np.nan, np.nan]])


# Compiled -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def compiled(torch):
    """The compiler, less the generation of code, which must find one graph."""
    torch.compiler.reset()
    return partial(torch.compile, fullgraph=True, backend="aot_eager")


@every_call
def test_a_compiled_function_has_the_value_and_the_gradients_of_the_function(torch, compiled, f):
    arguments = tensors(torch, f)
    assert_agree(torch, gradients(torch, f, *arguments), gradients(torch, compiled(f), *arguments))


@pytest.mark.parametrize("transform", ["grad", "hessian", "jacfwd", "jacrev"])
def test_the_compiler_differentiates_by_the_rules(torch, compiled, transform):
    # The formula would have derivatives by the maximum, wrong at ties and over nothing.
    transform = getattr(torch.func, transform)(sm.logsumexp)
    for x in map(torch.tensor, ([1.0, 1.0], [20.0, 0.0], [-np.inf, -np.inf])):
        assert_agree(torch, [transform(x)], [compiled(transform)(x)])


def test_a_compiled_batch_of_gradients_has_one_graph(torch, compiled):
    x = torch.from_numpy(np.random.default_rng(7).normal(size=(4, 3)))
    f = torch.func.vmap(torch.func.grad(lambda x: sm.softmax(x, temperature=x.exp())[0]))
    assert_agree(torch, [f(x)], [compiled(f)(x)])


def test_the_rules_can_be_compiled_themselves(torch, compiled):
    x = torch.from_numpy(np.random.default_rng(7).normal(size=(4, 3)))

    def f(x):
        return (
            sm.jvp(sm.softmax, x, x)[1],
            sm.vjp(sm.log_softmax, x)[1](x),
            sm.hvp(sm.logsumexp, x, x),
        )

    assert_agree(torch, f(x), compiled(f)(x))


def test_one_graph_serves_every_shape(torch, compiled):
    f = compiled(partial(sm.softmax, where=None, temperature=0.5), dynamic=True)
    for shape in ((2, 3), (5, 7), (4, 9)):
        x = torch.from_numpy(np.random.default_rng(7).normal(size=shape))
        with torch.compiler.set_stance("fail_on_recompile" if shape[0] != 2 else "default"):
            assert_agree(torch, [sm.softmax(x, temperature=0.5)], [f(x)])


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 1e9])
def test_generated_code_keeps_the_budget(torch, scale):
    def f(x):
        return sm.softmax(x / 0.3), sm.log_softmax(x / 0.3), sm.logsumexp(x / 0.3, -1)

    x = np.random.default_rng(9).normal(size=(50, 20), scale=scale).astype("float32")
    x[:, 7] = x.max(axis=1)  # met twice, it must be found twice
    x = torch.from_numpy(x)
    for case, y in zip(CASES.values(), torch.compile(f, fullgraph=True)(x), strict=True):
        assert_within_budget(case, (x / 0.3).numpy(), y.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_function
def test_generated_code_loses_none_of_many_small_terms(torch, function, dtype):
    x = np.stack(crowded(0.68, 9, 1000, dtype))
    y = torch.compile(partial(function, axis=-1), fullgraph=True)(torch.from_numpy(x))
    assert_within_budget(CASES[function.__name__], x, y.numpy())


@every_function
def test_no_special_value_of_scores_alone_is_lost_in_a_graph(torch, compiled, function):
    largest = torch.finfo(torch.float64).max
    values = [-np.inf, np.inf, np.nan, 0.0, -1.0, 700.0, -1000.0, largest, -largest]
    moved = [0.0, 1.0, -2.0, np.inf, np.nan]
    pairs = itertools.product(*(itertools.product(v, repeat=3) for v in (values, moved)))
    x, u = torch.tensor(list(pairs), dtype=torch.float64).unbind(1)
    u = u[:, 0] if function is sm.logsumexp else u

    def pulled(x, u):
        y, pullback = torch.func.vjp(partial(function, axis=-1), x)
        return y, pullback(u)[0]

    by_the_maths = torch.func.vmap(pulled)  # which is not recorded
    assert_agree(torch, by_the_maths(x, u), compiled(pulled)(x, u))


@every_function
@pytest.mark.parametrize("scale", [1, 30])
def test_the_graph_of_scores_alone_keeps_the_budget(torch, compiled, function, scale):
    case = CASES[function.__name__]
    x = np.random.default_rng(9).normal(size=(20, 50), scale=scale).astype("float32")
    x[:, 7] = x.max(axis=1)
    y = compiled(partial(function, axis=-1))(torch.from_numpy(x))
    assert_within_budget(case, x, y.numpy())


@every_function
def test_a_compiled_function_keeps_one_tensor_of_the_size_of_the_input(torch, function):
    torch.compiler.reset()
    f = torch.compile(partial(function, axis=-1), backend="aot_eager_decomp_partition")
    x = torch.rand(60, 100, requires_grad=True)
    kept = f(x).grad_fn.saved_tensors
    assert [a.dtype for a in kept if a.numel() == x.numel()] == [x.dtype]


def test_the_first_call_may_be_a_compiled_one(torch):
    code = """
import torch, softmaxes as sm
f = torch.compile(torch.func.hessian(sm.logsumexp), fullgraph=True, backend="aot_eager")
print(f(torch.tensor([1.0, 1.0])).tolist())
"""
    own = "ignore:`torch.jit.script:DeprecationWarning"
    command = [sys.executable, "-W", "error", "-W", own, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert found == "[[0.25, -0.25], [-0.25, 0.25]]\n"


@every_function
@pytest.mark.parametrize("axis", [-1, 0, None])
def test_the_compiler_sees_nothing_of_how_scores_alone_are_checked(torch, function, axis):
    torch.compiler.reset()
    names = []

    def see(graph, _):
        names.extend(n.target.__name__ for n in graph.graph.nodes if n.op == "call_function")
        return graph.forward

    f = torch.compile(function, fullgraph=True, dynamic=True, backend=see)
    for shape in (2, 3), (4, 5):
        x = torch.linspace(-3, 3, math.prod(shape)).reshape(shape)
        assert_agree(torch, [function(x, axis)], [f(x, axis)])
    assert names == ["alone"]


@every_function
def test_what_is_refused_is_refused_compiled_too(torch, function):
    f = torch.compile(function, backend="eager")
    for x, axis, error in (torch.ones(3), 1, ValueError), (torch.ones(3) * 1j, 0, TypeError):
        with pytest.raises(error) as expected:
            function(x, axis)
        with pytest.raises(error, match=re.escape(str(expected.value))):
            f(x, axis)


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "compiled"])
def test_an_exported_program_takes_any_shape(torch, strict):
    class Model(torch.nn.Module):
        def forward(self, x, t):
            return sm.log_softmax(x, temperature=t)

    def arguments(*shape):
        rng = np.random.default_rng(2)
        return torch.from_numpy(rng.normal(size=shape)), torch.tensor(0.3)

    sizes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("n")}
    program = torch.export.export(
        Model(), arguments(2, 3), dynamic_shapes=(sizes, None), strict=strict
    )
    for shape in ((2, 3), (4, 9)):
        assert_agree(torch, [Model()(*arguments(*shape))], [program.module()(*arguments(*shape))])


# What it costs --------------------------------------------------------------------------------------------------------


@every_function
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_one_tensor_of_the_size_of_the_input_is_kept_for_the_backward_pass(torch, function, dtype):
    x = torch.rand(6, 10, dtype=getattr(torch, dtype)).requires_grad_()
    y, kept = saved(torch, lambda: function(x, -1))
    owner = y if function is sm.softmax and dtype == "float32" else x
    assert [a.data_ptr() for a in kept] == [owner.data_ptr()]


KEPT = {
    "softmax": (sm.softmax, ()),
    "softmax, mask": (sm.softmax, ("where",)),
    "softmax, temperature": (sm.softmax, ("temperature",)),
    "log_softmax": (sm.log_softmax, ()),
    "log_softmax, mask, temperature": (sm.log_softmax, ("where", "temperature")),
    "logsumexp": (partial(sm.logsumexp, axis=-1), ()),
    "logsumexp, mask, weights": (partial(sm.logsumexp, axis=-1), ("where", "weights")),
    "cross_entropy, class numbers": (sm.cross_entropy, ("labels",)),
    "cross_entropy, soft labels": (sm.cross_entropy, ("weights",)),
    "kl_divergence": (sm.kl_divergence, ("weights",)),
    "entropy": (sm.entropy, ()),
}


@pytest.mark.parametrize(("function", "names"), KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_what_is_kept_for_the_backward_pass_is_what_jax_keeps(torch, jax, function, names, dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 10))
    beside = {
        "where": x > 0,
        "temperature": np.exp(x[:, :1]),
        "weights": np.exp(rng.normal(size=x.shape)),
        "labels": np.arange(6),
    }
    is_loss = function in (sm.cross_entropy, sm.kl_divergence)

    def call(backend, x):
        given = [
            backend.asarray(a, dtype if a.dtype == float else None) for a in map(beside.get, names)
        ]
        return (
            function(x, *given) if is_loss else function(x, **dict(zip(names, given, strict=True)))
        )

    ours, theirs = (backend_named(name) for name in ("torch", "jax"))
    z = ours.asarray(x, dtype).requires_grad_()
    _, kept = saved(torch, lambda: call(ours, z))
    _, pullback = jax.vjp(partial(call, theirs), theirs.asarray(x, dtype))
    assert sorted((a.shape, str(a.dtype).removeprefix("torch.")) for a in kept) == sorted(
        (a.shape, str(a.dtype)) for a in jax.tree.leaves(pullback)
    )


def saved(torch, f):
    """Return f() and the tensors that it keeps for the backward pass."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda a: kept.append(a) or a, lambda a: a):
        return f(), kept


def test_the_scores_of_a_softmax_are_not_kept(torch):
    x = torch.rand(6, 10, requires_grad=True) * 1.0
    scores = weakref.ref(x)
    y = sm.softmax(x)
    del x
    assert scores() is None
    y.sum().backward()


@every_call
def test_no_tensor_is_copied_to_numpy(torch, f, monkeypatch):
    def refuse(*_):
        raise AssertionError("a tensor was converted")

    arguments = tensors(torch, f)
    numpy, places = torch.Tensor.numpy, set()
    monkeypatch.setattr(
        torch.Tensor,
        "numpy",
        lambda a: places.add((a.data_ptr(), numpy(a).ctypes.data)) or numpy(a),
    )
    for name in ("__array__", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    gradients(torch, f, *arguments)
    assert arguments[0].data_ptr() in {ours for ours, _ in places}
    assert all(ours == theirs for ours, theirs in places)


def test_a_derivative_of_a_gradient_is_not_computed_by_numpy(torch):
    # It would be lost: 0, and no error.
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64, requires_grad=True)
    u = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    (g,) = torch.autograd.grad(sm.softmax(x), x, u, create_graph=True)
    twice = torch.func.hessian(lambda x: sm.softmax(x) @ u)(x.detach())
    assert_agree(torch, [twice[0]], torch.autograd.grad(g[0], x))
    with torch.autograd.forward_ad.dual_level():
        moving = torch.autograd.forward_ad.make_dual(x, u)
        (g,) = torch.autograd.grad(sm.softmax(moving), moving, u)
        assert_agree(torch, [twice[0]], [torch.autograd.forward_ad.unpack_dual(g).tangent])


def test_autograd_is_asked_where_a_derivative_may_be_and_nowhere_else(torch, monkeypatch):
    from softmaxes._backends import _torch

    x = torch.tensor([1.0, 2.0, 4.0])
    expected = sm.softmax(x)
    moving = x.clone().requires_grad_()
    assert sm.softmax(moving).requires_grad

    def refuse(*_):
        raise AssertionError("autograd was asked")

    monkeypatch.setattr(_torch.Function, "apply", refuse)
    assert torch.equal(sm.softmax(x), expected)
    with torch.no_grad():
        assert torch.equal(sm.softmax(moving), expected)
    for ask in (lambda: sm.softmax(moving), lambda: torch.func.jacfwd(sm.softmax)(x)):
        with pytest.raises(AssertionError, match="autograd was asked"):
            ask()


def test_what_is_recorded_is_not_computed_by_numpy(torch):
    # The result would stand in the record as a constant.
    from torch.fx.experimental.proxy_tensor import make_fx

    x, other = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([3.0, 0.0, 1.0])
    f = partial(sm.softmax, axis=-1)
    assert_agree(torch, [f(other)], [make_fx(f)(x)(other)])


def test_who_does_not_compile_does_not_wait_for_the_compiler(torch):
    code = """
import sys, torch, softmaxes as sm
sm.softmax(torch.ones(3, requires_grad=True), temperature=torch.ones(())).sum().backward()
print("torch._dynamo" in sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


# Beside PyTorch's own functions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CASES, *(f"masked.{name}" for name in CASES)])
def test_the_samples_of_pytorch_keep_the_budget(torch, name):
    from torch.testing._internal.common_methods_invocations import op_db

    case = CASES[name.removeprefix("masked.")]
    count = 0
    for op in (op for op in op_db if op.name == name):
        for sample in op.reference_inputs("cpu", torch.float32):
            x, options = in_our_terms(sample)
            theirs = op(sample.input, *sample.args, **sample.kwargs)
            y = case.function(x, **options)
            assert (y.shape, y.dtype) == (theirs.shape, theirs.dtype)
            assert_within_budget(case, *(a.numpy() for a in (x, y)), **options)
            count += 1
    assert count >= 14


def in_our_terms(sample):
    """Return the tensor of a sample and the options of our function."""
    given = dict(zip(("dim", "keepdim"), sample.args, strict=False)) | sample.kwargs
    x = sample.input.to(given.pop("dtype", sample.input.dtype))
    ours = {"dim": "axis", "keepdim": "keepdims", "mask": "where"}
    options = {"axis": None} | {ours[name]: value for name, value in given.items()}
    if options["axis"] == ():  # which is all axes there
        options["axis"] = None
    return x, options


def assert_within_budget(case, x, y, axis=-1, where=None, keepdims=False):
    """Check every slice, or what a mask leaves of it, against the truth."""
    axes = tuple(range(x.ndim)) if axis is None or x.ndim == 0 else axis
    where = np.broadcast_to(True if where is None else where, x.shape)
    x, where = slices(x, axes), slices(where, axes)
    if case.function is sm.logsumexp:
        y = y.reshape(len(x), 1)
    else:
        y = slices(y, axes)
        assert (y[~where] == (0.0 if case.function is sm.softmax else -np.inf)).all()
    where = where & (x != -np.inf)
    for row, kept, found in zip(x, where, y, strict=True):
        entries, actual = row[kept], found if case.function is sm.logsumexp else found[kept]
        if entries.size and np.isfinite(entries).all():
            exact, scale = case.exact(entries), case.scale(entries)
            error = ulp_error(actual.reshape(exact.shape), exact, x.dtype, scale=scale)
            assert error.max() <= case.budget(x.dtype.name)
        else:
            limit = np.max(entries, initial=-np.inf)  # NaN, inf, or -inf over nothing
            np.testing.assert_array_equal(actual, np.full_like(actual, limit))


def slices(a, axes):
    """Return the slices along the axes as the rows of a matrix."""
    axes = np.atleast_1d(np.array(axes, int))
    a = np.moveaxis(a, axes, range(-len(axes), 0))
    k = a.ndim - len(axes)
    return a.reshape(math.prod(a.shape[:k]), math.prod(a.shape[k:]))


# States ---------------------------------------------------------------------------------------------------------------


def seen(torch, x, **options):
    """Return the state of rows seen in two pieces."""
    state = online.empty(mean_shape=() if options else None, dtype=torch.float64, xp=torch)
    for piece in (slice(0, 2), slice(2, None)):
        state = online.update(state, x[:, piece], **{k: v[:, piece] for k, v in options.items()})
    return state


@pytest.mark.parametrize("name", ["expectation", seldom("logsumexp"), seldom("softmax")])
def test_what_a_state_gives_has_derivatives_compiled_or_not(torch, compiled, name):
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 4))).requires_grad_()
    f = {
        "logsumexp": lambda x: online.logsumexp(seen(torch, x)),
        "expectation": lambda x: online.expectation(seen(torch, x, values=x**2)),
        "softmax": lambda x: online.softmax(x, seen(torch, x)),
    }[name]
    options = {"check_undefined_grad": False}
    assert torch.autograd.gradcheck(
        f, (x,), check_forward_ad=True, check_batched_grad=True, **options
    )
    assert torch.autograd.gradgradcheck(f, (x,), **options)
    assert_equal(torch, gradients(torch, f, x), gradients(torch, compiled(f), x))
