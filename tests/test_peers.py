"""Beside SciPy, JAX and Optax: their own tests, their values where they are right, and where not."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.special
from conftest import LIBRARIES
from hypothesis import given
from hypothesis import strategies as st

import softmaxes as sm

HERE = Path(__file__).parent


@pytest.mark.parametrize("library", ["numpy", "array_api_strict", "jax.numpy"])
def test_the_tests_of_scipy_pass_on_our_functions(library, tmp_path):
    if {"array_api_strict": "strict", "jax.numpy": "jax"}.get(library, "numpy") not in LIBRARIES:
        pytest.skip(f"{library} is not tested")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "scipy_under_test",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-p", "no:xdist", "-c", os.devnull, "--rootdir", str(tmp_path)]
    command += ["--pyargs", "scipy.special.tests.test_logsumexp"]
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTEST_ADDOPTS": ""}
    if library != "numpy":
        environment["SCIPY_ARRAY_API"] = f'["{library}"]'
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) >= 20


def slices(**options):
    return st.lists(st.floats(-700, 700), min_size=1, max_size=30).map(np.array)


@given(slices())
def test_values_agree_with_scipy(x):
    np.testing.assert_allclose(sm.softmax(x), scipy.special.softmax(x), rtol=1e-12)
    np.testing.assert_allclose(
        sm.log_softmax(x), scipy.special.log_softmax(x), rtol=1e-12, atol=1e-15
    )
    np.testing.assert_allclose(sm.logsumexp(x), scipy.special.logsumexp(x), rtol=1e-14, atol=1e-14)


def test_values_agree_with_jax_on_every_axis_with_a_mask(jax):
    x = np.random.default_rng(0).normal(size=(2, 3, 4))
    mask = np.random.default_rng(1).random(x.shape) < 0.6
    mask[0, 0] = False
    for axis in (-1, 0, 1, (0, 2), None):
        for ours, theirs in (
            (sm.softmax, jax.nn.softmax),
            (sm.log_softmax, jax.nn.log_softmax),
            (sm.logsumexp, jax.nn.logsumexp),
        ):
            expected = theirs(jax.numpy.asarray(x), axis=axis, where=jax.numpy.asarray(mask))
            np.testing.assert_allclose(ours(x, axis=axis, where=mask), expected, rtol=1e-13)


# What the start page says of the others -------------------------------------------------------------------


def test_integers_wrap_in_scipy():
    x = np.array([1, 2, 0], dtype=np.uint8)
    with np.errstate(all="ignore"):
        assert np.isnan(scipy.special.softmax(x)).any()
    np.testing.assert_allclose(sm.softmax(x), [0.24472847, 0.66524096, 0.09003057], rtol=1e-7)


def test_half_precision_overflows_in_a_long_sum_elsewhere(jax):
    zeros = np.zeros(100_000, dtype=np.float16)
    with np.errstate(all="ignore"):
        assert np.isinf(scipy.special.logsumexp(zeros))
    assert np.isinf(jax.nn.logsumexp(jax.numpy.asarray(zeros)))
    assert sm.logsumexp(zeros) == np.float16(11.516)


def test_an_empty_row_has_a_nan_gradient_elsewhere(jax):
    row = jax.numpy.full(3, -np.inf)
    assert np.isnan(jax.grad(jax.nn.logsumexp)(row)).all()
    assert (jax.grad(sm.logsumexp)(row) == 0).all()


def test_the_dominant_log_probability_is_lost_elsewhere(jax):
    x = np.array([0.0, -40.0])
    assert scipy.special.log_softmax(x)[0] == 0
    assert jax.nn.log_softmax(jax.numpy.asarray(x))[0] == 0
    np.testing.assert_allclose(sm.log_softmax(x)[0], -4.248354255291589e-18, rtol=1e-15)
    np.testing.assert_allclose(sm.logsumexp(x), 4.248354255291589e-18, rtol=1e-15)


def test_the_loss_of_a_confident_answer_is_lost_in_optax(jax):
    optax = pytest.importorskip("optax")
    logits = jax.numpy.asarray([20.0, 0, 0], dtype="float32")
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    assert loss(logits, 0) == 0
    assert jax.grad(loss)(logits, 0)[0] == 0
    np.testing.assert_allclose(-sm.log_softmax(logits)[0], 4.1223e-9, rtol=1e-5)


def test_a_scale_outside_overflows_and_a_temperature_does_not():
    x = np.array([3e38, 2.9e38], dtype=np.float32)
    with np.errstate(all="ignore"):
        assert np.isnan(scipy.special.softmax(x / np.float32(0.1))).all()
    assert (sm.softmax(x, temperature=0.1) == [1, 0]).all()
