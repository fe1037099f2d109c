"""PyTorch's tensors in compiled loops: what its compiler hands over."""

from functools import partial

import numpy as np
import pytest
from cases import every_function

import softmaxes as sm
from softmaxes._backends._compiled import loops

MANY = 1 << 17  # entries, of which all are handed over whatever the rest of the suite asks for

of_loops = pytest.mark.skipif(loops() is None, reason="no loops are compiled")


@pytest.fixture
def recorded(torch):
    """The compiler, less the generation of code, and the graphs that it has found."""
    from functorch.compile import make_boxed_func
    from torch._dynamo.backends.common import aot_autograd

    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    torch.compiler.reset()
    return partial(torch.compile, fullgraph=True, backend=aot_autograd(fw_compiler=keep)), graphs


def handed_over(graphs):
    """Return the names of what the graphs hand over to loops."""
    nodes = [node for graph in graphs for node in graph.graph.nodes]
    return [node.args[0] for node in nodes if "by_loops" in str(node.target)]


def scores(torch, dtype="float32"):
    x = np.random.default_rng(0).normal(scale=4, size=(MANY // 64, 64)).astype(dtype)
    return torch.from_numpy(x).requires_grad_()


def gradient(torch, f, x):
    y = f(x)
    return y.detach(), *torch.autograd.grad(y, x, y.detach())


@of_loops
@every_function
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("is_masked", [False, True], ids=["all", "masked"])
def test_what_the_compiler_hands_over_has_the_bits_of_the_eager_function(
    torch, recorded, function, dtype, is_masked
):
    compiled, graphs = recorded
    x = scores(torch, dtype)
    f = partial(function, axis=-1, where=x.detach() > -4 if is_masked else None)
    expected, actual = (gradient(torch, g, x) for g in (f, compiled(f)))
    for a, b in zip(expected, actual, strict=True):
        assert torch.equal(a, b)
    name, part = function.__name__, "vjp" if function is sm.softmax else "pull"
    assert handed_over(graphs) == [f"{name} primal", f"{name} {part}"]


@of_loops
@every_function
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_of_any_kind_are_those_of_numpy(torch, recorded, function, threads, monkeypatch):
    compiled, _ = recorded
    monkeypatch.setenv("SOFTMAXES_NUM_THREADS", str(threads))
    x = scores(torch).detach()
    x[3, 5], x[70, :9], x[900], x[1500, 0] = np.inf, np.inf, -np.inf, np.nan
    f, u = partial(function, axis=-1), torch.linspace(-1, 1, MANY).reshape(x.shape)
    u = u[:, 0].contiguous() if function is sm.logsumexp else u
    y, pullback = sm.vjp(function, x.numpy(), axis=-1)
    x = x.clone().requires_grad_()
    for of_torch in (f, compiled(f)):
        z = of_torch(x)
        (g,) = torch.autograd.grad(z, x, u)
        np.testing.assert_array_equal(z.detach().numpy(), y)
        np.testing.assert_array_equal(g.numpy(), pullback(u.numpy()))


@of_loops
@every_function
@pytest.mark.parametrize("columns", [64, 8])
def test_columns_are_handed_over_too(torch, recorded, function, columns):
    compiled, graphs = recorded
    x = scores(torch).detach().reshape(-1, columns).requires_grad_()
    f = partial(function, axis=0)
    assert torch.equal(compiled(f)(x), f(x))
    assert handed_over(graphs)[0] == f"{function.__name__} primal"


@of_loops
@every_function
@pytest.mark.parametrize("shape", [(0, 5, 3), (0, 5, 70), (4, 5, 0)])
def test_columns_of_nothing_have_cotangents_of_their_shape(torch, function, shape):
    x = torch.zeros(shape, requires_grad=True)
    function(x, axis=1).sum().backward()
    assert x.grad.shape == shape


@of_loops
@every_function
@pytest.mark.parametrize("columns", [3, 70])
def test_columns_and_cotangents_may_lie_anywhere_in_memory(torch, function, columns):
    x = torch.from_numpy(np.random.default_rng(4).normal(size=(2, 9, 2 * columns)))[..., ::2]
    found = []
    for a in (x, x.contiguous()):
        a.requires_grad_()
        y = function(a, axis=1)
        cotangents = torch.ones(1, dtype=x.dtype).expand(y.shape), torch.ones_like(y)
        found += [torch.autograd.grad(y, a, u, retain_graph=True)[0] for u in cotangents]
    for g in found[1:]:
        assert torch.equal(g, found[0])


@of_loops
@pytest.mark.parametrize(
    "f",
    [
        partial(sm.softmax, temperature=0.5),
        lambda x: sm.softmax(x[:8]),
        lambda x: sm.softmax(x.mT.contiguous().mT),
    ],
    ids=["temperature", "few", "transposed"],
)
def test_the_compiler_keeps_what_has_no_loop_or_is_not_worth_the_way(torch, recorded, f):
    compiled, graphs = recorded
    compiled(f)(scores(torch))
    assert handed_over(graphs) == []


@of_loops
def test_one_graph_hands_over_every_number_of_rows(torch, recorded):
    compiled, graphs = recorded
    f = compiled(sm.log_softmax, dynamic=True)
    for rows in (MANY // 64, MANY // 32, 1, MANY // 16):
        x = torch.from_numpy(np.random.default_rng(0).normal(size=(rows, 64)))
        assert torch.allclose(f(x), sm.log_softmax(x), rtol=1e-14)
    assert handed_over(graphs) == ["log_softmax primal"]


@of_loops
def test_what_is_handed_over_has_derivatives_of_every_order(torch, recorded):
    compiled, graphs = recorded
    x = scores(torch, "float64").detach()

    def twice(x):
        first = torch.func.grad(lambda x: sm.log_softmax(x)[:, 0].sum())
        return torch.func.jvp(lambda x: first(x).sin(), (x,), (x.cos(),))

    for a, b in zip(twice(x), compiled(twice)(x), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-14)
    assert handed_over(graphs)


@of_loops
def test_a_record_that_may_be_taken_elsewhere_has_formulas(torch):
    from torch.fx.experimental.proxy_tensor import make_fx

    class Model(torch.nn.Module):
        def forward(self, x):
            return sm.softmax(x)

    x = scores(torch).detach()
    program = torch.export.export(Model(), (x,))
    graphs = make_fx(partial(sm.softmax, axis=-1))(x), program.graph_module
    assert handed_over(graphs) == []


@of_loops
def test_the_operator_says_what_it_does(torch):
    from softmaxes._backends import _torch_operators

    x, where = scores(torch).detach(), scores(torch).detach() > 0
    y = sm.logsumexp(x, -1, keepdims=True)
    for name, tensors in (
        ("softmax primal", [x]),
        ("logsumexp primal", [x, where]),
        ("softmax vjp", [sm.softmax(x), x]),
        ("logsumexp pull", [x, where, y]),
    ):
        assert name in _torch_operators.FUNCTIONS
        torch.library.opcheck(torch.ops.softmaxes.by_loops.default, (name, [-1], tensors))
