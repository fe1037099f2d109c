"""Time per call, ours next to the peers': run by `nox -s bench`."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.special

import softmaxes as sm

NAMES = ("softmax", "log_softmax", "logsumexp")
SHAPES = {"small": (8,), "rows": (4096, 64), "vocabulary": (16, 50_257)}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def scores(request):
    return np.random.default_rng(0).standard_normal(request.param, dtype="float32")


@pytest.mark.parametrize("library", [sm, scipy.special], ids=["softmaxes", "scipy"])
@pytest.mark.parametrize("name", NAMES)
def test_numpy(benchmark, name, library, scores):
    benchmark(getattr(library, name), scores, axis=-1)


@pytest.mark.parametrize("library", [sm, jax.nn], ids=["softmaxes", "jax"])
@pytest.mark.parametrize("name", NAMES)
def test_jax_jit(benchmark, name, library, scores):
    function = jax.jit(getattr(library, name), static_argnames="axis")
    on_device = jax.device_put(scores)
    benchmark(lambda: function(on_device, axis=-1).block_until_ready())
