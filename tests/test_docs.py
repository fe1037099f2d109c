"""The documentation keeps its word: every example runs, and prints the numbers that everyone knows."""

import doctest
import os
import re
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import LIBRARIES, MODULES, seldom
from test_peers import README_ROWS, written

import softmaxes as sm
from softmaxes import online

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"

# A fenced block of code: in docs/ what Sphinx runs, in the README what is Python.
CELL = re.compile(r"^```\{code-cell\} python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# How a cell is shown: YAML between two lines, or lines that begin with a colon.
DISPLAY = re.compile(r"\A(---\n.*?^---\n|(:[^\n]*\n)+)", re.DOTALL | re.MULTILINE)
# What the README says that its examples print.
OUTPUT = re.compile(r"^```text\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# The libraries that an example imports.
IMPORTED = re.compile(r"^(?:import|from) (\w+)", re.MULTILINE)
# A row of a table, with its cells apart.
ROW = re.compile(r"^\| (.*) \|$", re.MULTILINE)

PUBLIC = {name: getattr(sm, name) for name in sm.__all__}
PUBLIC |= {f"online.{name}": getattr(online, name) for name in online.__all__}

# What a page must print, in this order, among other things.
PRINTED = {
    "README.md": [OUTPUT.search(README.read_text(encoding="utf-8"))[1]] * 2,
    "index.md": [
        "[1.00000e+00 2.06115e-09 2.06115e-09]\n[-4.12231e-09  2.06115e-09  2.06115e-09]",
        "[1.00000e+00 2.06115e-09 2.06115e-09]\n[-4.12231e-09  2.06115e-09  2.06115e-09]",
        "[-4.1223074e-09  2.0611537e-09  2.0611537e-09]",
    ],
    "swapping.md": [
        "numpy: loss 1.099, then 0.012, on numpy\njax.numpy: loss 1.099, then 0.012, on jaxlib._jax",
        "torch: loss 1.099, then 0.012, on torch\n[True, True]",
    ],
    "softmax.md": [
        "[0.0320586  0.08714432 0.23688282 0.64391426] 1.0",
        "[0.01165623 0.03168492 0.08612854 0.23412166 0.63640865]",
        "[0.01165623 0.03168492 0.08612854 0.23412166 0.63640865]",
        "[0.10153632 0.1674051  0.27600434 0.45505423]",
        "[0.25 0.25 0.25 0.25]",
        "[0.  0.  0.5 0.5]",
        "True",
        "inf 8.21840746e+307] [nan  0.]",
        "0.0 [  0. -inf]",
        "[  -0. -800.]",
        "1.0 -4.248354255291589e-18",
    ],
    "dask.md": [
        "(2, 100000) True",
        "naive      trees 2",
        "softmax    trees 1",
        "logsumexp  trees 1",
        "[0.26894142 0.73105858 0.         0.        ]",
        "(nan,) (nan, 1000000)",
        "True",
    ],
    "derivatives.md": [
        "jax.nn     loss -0, gradient 0",
        "softmaxes  loss 4.1223e-09, gradient -4.1223e-09",
    ],
    "losses.md": [
        "[0.40760596 3.09492296]",
        "softmaxes  loss 4.1223e-09, gradient -4.1223e-09",
        "plain      loss 0.0000e+00, gradient 0.0000e+00",
        "1.113e-19",
        "[0.40760596 0.        ]",
    ],
    "numerics.md": ["0.0 4.248354255291589e-18", "0.0 -4.248354255291589e-18", "numpy    softmax "],
    "online.md": [
        "2.40760596444438 2.40760596444438",
        "18.303398",
        "[0.0320586  0.08714432 0.23688282 0.64391426]",
        "[1.     2.3133 3.4076 4.4402]",
        "[0.33333333 0.33333333] 1.09861228866810",
        "[0. 0.] 0.0",
        "mean 2.5, entropy 1.5 bits",
    ],
    "pytorch.md": [
        "loss -0.0000e+00, gradient [0.0, ",
        "loss 4.1223e-09, gradient [-4.12230",
        "temperature",
        "[[0.2689, 0.7311, 0.0000],\n        [0.0000, 0.0000, 0.0000]]",
        "[ 0.2500, -0.2500,  0.0000]",
        "tensor([0.5000, 0.5000, 0.0000])",
    ],
    "howto/einops.md": [
        "(2, 3, 4) True",
        "[[ 5.33141162  7.33141162]\n [13.33141162 15.33141162]]",
        "[[1. 1.]\n [1. 1.]]",
    ],
    "howto/equinox.md": [
        "loss 1.05, then 0.0",
        "right, of the points not seen: 100%",
        "True False",
    ],
    "howto/flax.md": ["[ True  True False]", "False True", "True False", "True"],
    "howto/jaxtyping.md": [
        "(2, 3, 4) (2, 3, 4)",
        "(2, 3)",
        "Type-check error whilst checking the parameters of __main__.attend",
        "Type-check error whilst checking the parameters of __main__.attend",
        "numpy\njaxlib._jax\ntorch",
    ],
    "howto/numpyro.md": ["True", "4.1 ± 0."],
    "howto/scikit_learn.md": [
        "(150, 3) True True",
        "0.91\n0.90",
        "Tensor torch.float64 True",
        "[[0.11920292 0.88079708]\n [0.5        0.5       ]]",
    ],
    "howto/xarray.md": [
        "('place', 'class') [1. 1. 1. 1.]",
        "('place',) ",
        "dask.array.core {'place': (2, 2), 'class': (2, 1)}\nTrue\ndask.array.core",
        "[0. 0. 0. 0.]",
        "got xarray.core.dataarray.DataArray; call through xarray.apply_ufunc",
    ],
    "support.md": ["softmax               e-g---  e-g--d", "l  lazy: nothing is computed"],
    "linear_cross_entropy.md": ["(4096, 64, 32768) plain 1", "bfloat16\nfloat32"],
    "training.md": ["26284 tokens, 3481 words", "without_scores  [8.1", "with_scores     [8.1"],
    "api.md": ["info", "check", "--json"],
}
SLOW = ["numerics.md"]


def examples(page):
    """The examples of a page, each with the number of lines above it."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in (BLOCK if page == README else CELL).finditer(text):
        display = DISPLAY.match(match[1])
        start = match.start(1) + (display.end() if display else 0)
        found.append((text.count("\n", 0, start), text[start : match.end(1)]))
    return found


def name_of(page):
    """The path of a page, from the folder of the pages on."""
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


PAGES = [*sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("howto/*.md"))]
EXECUTED = [
    (seldom if page.name in SLOW else pytest.param)(page, id=name_of(page))
    for page in [README, *PAGES]
    if examples(page)
]


@pytest.fixture
def reader(monkeypatch, handed_over_as_it_comes):
    """Stand in the folder of the pages, without a window to draw in, with JAX as it comes."""
    monkeypatch.chdir(DOCS)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setattr(sys, "path", [*sys.path])
    # The package under test, for the examples that start an interpreter.
    places = [str(Path(sm.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
    jax = sys.modules.get("jax")
    double = jax is not None and jax.config.jax_enable_x64
    if double:
        jax.config.update("jax_enable_x64", False)
    with mock.patch.dict(os.environ):  # a page may set what scikit-learn asks for
        yield
    if double:
        jax.config.update("jax_enable_x64", True)


# The pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("page", EXECUTED)
def test_every_example_of_a_page_runs_and_prints_what_is_known(page, capsys):
    skip_without("".join(code for _, code in examples(page)))
    namespace = {"__name__": "__main__"}
    for line, code in examples(page):
        exec(compile("\n" * line + code, page, "exec"), namespace)
    assert missing(PRINTED.get(name_of(page), []), capsys.readouterr().out) == []


def skip_without(code):
    """Skip the test where a library that the code imports is not installed."""
    for library in sorted(set(IMPORTED.findall(code)) - {"softmaxes"}):
        pytest.importorskip(library, reason=f"the example needs {library}")


def missing(expected, printed):
    """The strings that do not occur in what was printed, each after the last that does."""
    position, absent = 0, []
    for text in expected:
        found = printed.find(text, position)
        if found < 0:
            absent.append(text)
        else:
            position = found + len(text)
    return absent


def test_no_page_shows_python_that_is_not_run():
    idle = {page.name: BLOCK.findall(page.read_text(encoding="utf-8")) for page in PAGES}
    assert {name: blocks for name, blocks in idle.items() if blocks} == {}


def test_the_table_of_the_readme_is_the_one_that_is_tested():
    _, _, *rows = ROW.findall(README.read_text(encoding="utf-8"))
    assert [row.split(" | ") for row in rows] == [list(row[:4]) for row in README_ROWS]


# A row of a table that begins with a call.
CALLS = re.compile(r"^\| (`[^|]*\(.*)\|$", re.MULTILINE)
SECTION = re.compile(r"^## .*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
COMING_FROM = SECTION.findall((DOCS / "coming_from.md").read_text(encoding="utf-8"))


@pytest.mark.usefixtures("reader")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of SciPy, on the lines that are NaN
@pytest.mark.parametrize("last", range(len(COMING_FROM)), ids=lambda n: COMING_FROM[n].split()[1])
def test_each_line_for_those_who_come_from_elsewhere_says_what_is_computed(last):
    page = "".join(COMING_FROM[: last + 1])
    code = "".join(CELL.findall(page))
    skip_without(code)
    namespace = {}
    exec(code, namespace)
    rows = CALLS.findall(COMING_FROM[last])
    assert rows
    assert [said for row in rows for said in untrue(row, namespace)] == []


def untrue(row, namespace):
    """What a line says that is not so: its two calls return the same, or each what it is said to give."""
    theirs, *gives, ours, last = (cell.strip() for cell in row.split("|"))
    values = [eval(call.strip("`"), namespace) for call in (theirs, ours)]
    if gives:
        return [
            f"{call} gives {said}, not {written(value)}"
            for call, said, value in zip((theirs, ours), (*gives, last), values, strict=True)
            if said != written(value)
        ]
    agree = all(map(close, *map(arrays, values)))
    return [] if agree else [f"{theirs} gives {values[0]}, {ours} gives {values[1]}"]


def arrays(values):
    return [np.asarray(a) for a in (values if isinstance(values, tuple) else (values,))]


def close(theirs, ours):
    """Tell whether two results agree, on scores where the peers are right to some ulp."""
    same = theirs.shape == ours.shape and theirs.dtype == ours.dtype
    return same and np.allclose(
        theirs, ours, rtol=16 * np.finfo(ours.dtype).eps, atol=0, equal_nan=True
    )


def test_every_page_is_in_the_table_of_contents():
    found = {DOCS / "index.md"}
    for index in (DOCS / "index.md", DOCS / "howto" / "index.md"):
        contents = index.read_text(encoding="utf-8").partition("```{toctree}")[2].partition("```")
        found |= {index.parent / f"{name}.md" for name in contents[0].split() if name != ":hidden:"}
    assert found == set(PAGES)


def test_every_public_name_is_in_the_reference():
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    described = re.findall(
        r"^\.\. auto(?:function|class):: (?:softmaxes\.)?([\w.]+)$", reference, re.MULTILINE
    )
    assert sorted(described) == sorted(PUBLIC)


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *PAGES], ids=name_of)
def test_every_link_to_a_file_leads_somewhere(page):
    prose = re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)#:\s]+)\)", prose)
    assert [link for link in links if not (page.parent / link).exists()] == []


EXAMPLE = DOCS / "examples" / "attention.py"


def trained(library):
    """The query, the weights and the losses of the example model on an array library."""
    model = {"__name__": "__main__"}
    code = EXAMPLE.read_text(encoding="utf-8")
    exec(code.replace("import numpy as xp", f"import {library} as xp"), model)
    assert type(model["query"]) is type(model["xp"].asarray([1.0]))
    return [np.asarray(model[name]) for name in ("query", "weights", "losses")]


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("name", [name for name in LIBRARIES if name != "dask"])
def test_the_example_model_learns_the_same_on_every_library(name):
    pytest.importorskip(MODULES[name])
    results = trained(MODULES[name] if name != "jax" else "jax.numpy")
    losses = results[-1]
    assert losses[-1] < 0.02 * losses[0]
    for actual, expected in zip(results, trained("numpy"), strict=True):
        # 100 steps, each of which rounds by 6e-8
        assert abs(actual - expected).max() < 1e-5 * abs(expected).max()


@pytest.mark.usefixtures("reader")
def test_the_gradients_of_the_example_model_are_those_of_jax(jax):
    model = {"__name__": "model"}
    exec(EXAMPLE.read_text(encoding="utf-8").replace("numpy as xp", "jax.numpy as xp"), model)
    batch = model["batch"]()
    query, weights = np.ones(4, "float32"), np.eye(4, 3, dtype="float32")

    def loss(query, weights):
        scores = jax.numpy.where(batch[1], batch[0] @ query, -jax.numpy.inf)
        context = (jax.nn.softmax(scores)[..., None] * batch[0]).sum(1)
        log_p = jax.nn.log_softmax(context @ weights)
        return -jax.numpy.take_along_axis(log_p, batch[2][:, None], -1).mean()

    actual = model["gradients"](query, weights, *batch)
    value, expected = jax.value_and_grad(loss, argnums=(0, 1))(query, weights)
    for a, b in zip(actual, (value, *expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


# The docstrings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLIC)
def test_the_examples_of_a_docstring_run(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(PUBLIC[name], name)
    runner = doctest.DocTestRunner()
    runner.run(test)
    assert test.examples
    assert runner.summarize().failed == 0


# The numbers that everyone knows --------------------------------------------------------------------------------------

FIVE = [0.01165623, 0.03168492, 0.08612854, 0.23412166, 0.63640865]
GOLDEN = {
    "eleven to fifteen": (sm.softmax, [11, 12, 13, 14, 15], {}, FIVE),
    "the same less 15": (sm.softmax, [-4, -3, -2, -1, 0], {}, FIVE),
    "one to four": (sm.softmax, [1, 2, 3, 4], {}, [0.0320586, 0.08714432, 0.23688282, 0.64391426]),
    "one to four at temperature 2": (
        sm.softmax,
        [1, 2, 3, 4],
        {"temperature": 2},
        [0.10153632, 0.1674051, 0.27600434, 0.45505423],
    ),
}


@pytest.mark.parametrize(("function", "x", "options", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_golden_numbers_to_the_digits_known(backend, function, x, options, expected):
    y = backend.run(function, backend.asarray(x), **options)
    assert expected == np.round(backend.to_numpy(y), 8).tolist()


def test_where_the_exponential_overflows_and_underflows_the_logarithm_does_not(backend):
    with np.errstate(over="ignore", divide="ignore"):
        assert np.exp(710.0) == np.inf
        assert np.exp(-800.0) == 0
        assert np.log(np.exp(-800.0)) == -np.inf
    far = backend.to_numpy(backend.run(sm.softmax, backend.asarray([710, 0])))
    assert np.isfinite(far).all()
    log_p = backend.to_numpy(backend.run(sm.log_softmax, backend.asarray([0, -800])))
    assert log_p.tolist() == [0, -800]
    assert np.signbit(log_p[0])


def test_a_dominant_score_keeps_its_logarithm(backend):
    x = backend.asarray([0, -40])
    log_p = backend.to_numpy(backend.run(sm.log_softmax, x))[0]
    log_sum = float(backend.to_numpy(backend.run(sm.logsumexp, x)))
    assert [f"{a:.3e}" for a in (log_p, log_sum)] == ["-4.248e-18", "4.248e-18"]
