"""Libraries that nothing in the code was written for: sparse arrays, and graphs of ONNX."""

import numpy as np
import pytest

import softmaxes as sm

X = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 3.0]])
V = np.array([[0.5, 0.0, -1.0], [2.0, 1.0, 0.0]])
Q = np.array([[0.5, 0.0, 0.5], [1.0, 0.0, 0.0]])

CALLS = {
    "softmax": lambda x, v, q: sm.softmax(x),
    "temperature": lambda x, v, q: sm.softmax(x, temperature=0.5),
    "mask": lambda x, v, q: sm.softmax(x, where=x > 0),
    "log_softmax": lambda x, v, q: sm.log_softmax(x),
    "logsumexp": lambda x, v, q: sm.logsumexp(x, axis=0),
    "cross_entropy": lambda x, v, q: sm.cross_entropy(x, q),
    "kl_divergence": lambda x, v, q: sm.kl_divergence(x, v),
    "entropy": lambda x, v, q: sm.entropy(x),
    "linear_cross_entropy": lambda x, v, q: sm.linear_cross_entropy(x, v, q[:, :2]),
    "jvp": lambda x, v, q: sm.jvp(sm.softmax, x, v)[1],
    "vjp": lambda x, v, q: sm.vjp(sm.softmax, x)[1](v),
    "hvp": lambda x, v, q: sm.hvp(sm.logsumexp, x, v),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def sparse():
    return pytest.importorskip("sparse", reason="sparse is not installed")


@pytest.fixture
def ndonnx():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return pytest.importorskip("ndonnx", reason="ndonnx is not installed")


@every_call
def test_sparse_arrays_stay_sparse(sparse, call):
    y = call(*map(sparse.COO.from_numpy, (X, V, Q)))
    assert isinstance(y, sparse.COO)
    np.testing.assert_allclose(y.todense(), call(X, V, Q), rtol=1e-14, atol=1e-15)


def test_what_sparse_lacks_is_named(sparse):
    x = sparse.COO.from_numpy(X)
    with pytest.raises(TypeError, match="sparse has no function arange"):
        sm.cross_entropy(x, [0, 1])


@every_call
def test_values_of_onnx_are_those_of_numpy(ndonnx, call):
    y = call(*map(ndonnx.asarray, (X, V, Q)))
    np.testing.assert_allclose(y.unwrap_numpy(), call(X, V, Q), rtol=1e-14, atol=1e-15)


@every_call
def test_graphs_of_onnx_stay_graphs(ndonnx, call):
    x, v, q = (ndonnx.argument(shape=("N", 3), dtype=ndonnx.float64) for _ in range(3))
    if call is CALLS["linear_cross_entropy"]:  # whose rows are counted
        x, v, q = (ndonnx.argument(shape=(2, 3), dtype=ndonnx.float64) for _ in range(3))
    assert "lazy" in repr(call(x, v, q))
