"""Beside SciPy, JAX and Optax: SciPy's own tests, the values of the others, and what they lose."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.special
from conftest import LIBRARIES, seldom
from hypothesis import given
from hypothesis import strategies as st

import softmaxes as sm

HERE = Path(__file__).parent


@pytest.mark.parametrize("library", ["numpy", "array_api_strict", seldom("jax.numpy")])
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
    step = np.finfo(float).smallest_subnormal  # below the normal numbers, all digits there are
    np.testing.assert_allclose(sm.softmax(x), scipy.special.softmax(x), rtol=1e-12, atol=step)
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


def test_the_loss_of_a_confident_answer_is_lost_in_optax(jax):
    optax = pytest.importorskip("optax")
    logits = jax.numpy.asarray([20.0, 0, 0], dtype="float32")
    loss = optax.losses.softmax_cross_entropy_with_integer_labels
    assert loss(logits, 0) == 0
    assert jax.grad(loss)(logits, 0)[0] == 0
    np.testing.assert_allclose(-sm.log_softmax(logits)[0], 4.1223e-9, rtol=1e-5)


# The table of the README ----------------------------------------------------------------------------------------------


class ReadmeRow(NamedTuple):
    """A row as the README prints it; `compute(library)` returns the numbers behind a cell."""

    input: str
    scipy: str
    jax: str
    ours: str
    compute: Callable[[Any], list[Any]]


CONFIDENT, EMPTY = [20, 0, 0], [-np.inf, -np.inf]

README_ROWS = [
    ReadmeRow(
        "`-log_softmax([20, 0, 0])[0]`, float32",
        "0",
        "0",
        "4.12e-09",
        lambda f: [-f.log_softmax(f.array(CONFIDENT, "float32"))[0]],
    ),
    ReadmeRow(
        "its derivative by the first score",
        "none offered",
        "0",
        "-4.12e-09",
        lambda f: [
            f.pulled(f.log_softmax, f.array(CONFIDENT, "float32"), f.array([-1, 0, 0], "float32"))
        ],
    ),
    ReadmeRow(
        "`softmax([1, 2, 0])`, uint8",
        "`[nan, 0, nan]`",
        "`[nan, 0, nan]`",
        "`[0.245, 0.665, 0.09]`",
        lambda f: [f.softmax(f.array([1, 2, 0], "uint8"))],
    ),
    ReadmeRow(
        "`logsumexp(zeros(100_000))`, float16",
        "inf",
        "inf",
        "11.5",
        lambda f: [f.logsumexp(f.array(np.zeros(100_000), "float16"))],
    ),
    ReadmeRow(
        "`softmax([-inf, -inf])`, and its derivative",
        "`[nan, nan]`, none offered",
        "`[nan, nan]`, nan",
        "`[0, 0]`, 0",
        lambda f: [
            f.softmax(f.array(EMPTY, "float32")),
            f.pulled(f.softmax, f.array(EMPTY, "float32"), f.array([1, 0], "float32")),
        ],
    ),
    ReadmeRow(
        "`[1e38, 9e37]`, float32: `softmax(x / 0.1)`, ours with `temperature=0.1`",
        "`[nan, nan]`",
        "`[nan, nan]`",
        "`[1, 0]`",
        lambda f: [f.tempered(f.array([1e38, 9e37], "float32"), 0.1)],
    ),
]


COLUMNS = {
    "SciPy": "scipy",
    "JAX": "jax",
    "softmaxes on NumPy": "ours",
    "softmaxes on JAX": "ours",
}


@pytest.mark.parametrize("library", COLUMNS)
@pytest.mark.parametrize("row", README_ROWS, ids=lambda row: row.input)
def test_a_row_of_the_readme_says_what_is_computed(row, library, request):
    with np.errstate(all="ignore"):
        numbers = row.compute(functions_of(library, request))
    assert getattr(row, COLUMNS[library]) == ", ".join(map(written, numbers))


def functions_of(library, request):
    """Return the functions of a library; `pulled(f, x, u)` is the first entry of Jᵀ u."""
    if library == "SciPy":
        return SimpleNamespace(
            **family(scipy.special),
            array=np.array,
            pulled=lambda f, x, u: None,
            tempered=lambda x, t: scipy.special.softmax(x / t),
        )
    if library == "JAX":
        jax = request.getfixturevalue("jax")
        return SimpleNamespace(
            **family(jax.nn),
            array=jax.numpy.array,
            pulled=lambda f, x, u: jax.vjp(f, x)[1](u)[0][0],
            tempered=lambda x, t: jax.nn.softmax(x / t),
        )
    on_jax = library == "softmaxes on JAX"
    return SimpleNamespace(
        **family(sm),
        array=request.getfixturevalue("jax").numpy.array if on_jax else np.array,
        pulled=lambda f, x, u: sm.vjp(f, x)[1](u)[0],
        tempered=lambda x, t: sm.softmax(x, temperature=t),
    )


def family(module):
    return {name: getattr(module, name) for name in ("softmax", "log_softmax", "logsumexp")}


def written(value):
    """Write a number or a list as the README does."""
    if value is None:
        return "none offered"
    if np.ndim(value):
        return f"`[{', '.join(map(written, value))}]`"
    return f"{float(value):z.3g}"
