"""The command line: what `python -m softmaxes` and its commands print, find and return."""

import itertools
import json
import math
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pytest
import truth
from ulps import ulp_error

import softmaxes as sm
from softmaxes.__main__ import main
from softmaxes._cli import bench, check, digits, timing, tour
from softmaxes._cli.backends import installed
from softmaxes._cli.budgets import BUDGETS
from softmaxes._cli.exact import exact
from softmaxes._cli.formats import FORMATS
from softmaxes._cli.regimes import REGIMES, sample

OPTIONAL = ("array_api_strict", "cupy", "dask", "jax", "ml_dtypes", "rich", "scipy", "torch")
MODULE = "import runpy; runpy.run_module('softmaxes', run_name='__main__', alter_sys=True)"
WITHOUT_OPTIONAL = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, *rest):
        return None if name in {OPTIONAL} else super().find_spec(name, *rest)

sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


def run(*arguments, script=MODULE, **environment):
    """Run the command line in a process of its own, in a pipe."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=600,
        check=False,
    )


def run_bare(*arguments):
    """Run it where nothing but the hard dependencies can be imported."""
    return run(*arguments, script=WITHOUT_OPTIONAL + MODULE)


@pytest.fixture(scope="module")
def toured():
    return json.loads(run("--json").stdout)


@pytest.fixture
def on_numpy_alone(monkeypatch):
    """Let `check` measure NumPy and nothing else."""
    backends = [backend for backend in installed() if backend.name == "numpy"]
    monkeypatch.setattr(check, "installed", lambda: backends)


# Timing ---------------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that moves when the work says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        def work():
            self.now += next(seconds)

        return work


@pytest.fixture
def timed(monkeypatch):
    """Return what times calls that take so many seconds, beside copies that do, one call of each at once."""

    def of(ours, theirs, copies, count):
        clock, called = Clock(), []
        monkeypatch.setitem(timing.CLOCKS, "wall", clock)
        monkeypatch.setattr(timing, "_calls_in_a_batch", lambda work: 1)
        named = {"ours": ours, "theirs": theirs, "copy": itertools.cycle(copies)}
        works = {name: clock.work(seconds) for name, seconds in named.items()}

        def work(name):
            def noted(*_):
                called.append(name)
                works[name]()

            return noted

        monkeypatch.setattr(timing.np, "copyto", work("copy"))
        return timing.turns(work("ours"), work("theirs"), count=count), called

    return of


def test_times_are_medians_without_the_first_of_each_order(timed):
    times, _ = timed(iter([50, 50, 2, 9, 2, 2]), iter([1, 1, 6, 6, 1, 6]), [1.0], count=2)

    assert times.ours == 2
    assert times.theirs == 6
    assert times.ratio == 3


def test_each_follows_the_copy_every_other_time(timed):
    _, called = timed(itertools.repeat(1), itertools.repeat(1), [1.0], count=1)

    assert called == 2 * ["copy", "ours", "theirs", "copy", "theirs", "ours"]


def test_a_copy_that_drifts_is_noticed_and_all_is_timed_again(timed):
    # Four copies are made in each try, of which two count.
    drifting, still = [1.0, 1.0, 1.0, 1.3], [1.0, 1.0, 1.0, 1.05]
    one = itertools.repeat(1)

    once, calls = timed(one, one, [*still, *drifting], count=1)
    assert once.steady
    assert len(calls) == 12

    twice, calls = timed(one, one, [*drifting, *still], count=1)
    assert twice.steady
    assert len(calls) == 24

    never, calls = timed(one, one, drifting, count=1)
    assert not never.steady
    assert len(calls) == timing.TRIES * 12


@pytest.mark.parametrize(("drift", "status"), [(0.05, 0), (0.2, 1)])
def test_bench_returns_1_where_the_machine_is_not_steady(drift, status, monkeypatch, capsys):
    monkeypatch.setattr(bench, "turns", lambda *_, clock: timing.Times(2e-6, 3e-6, drift))

    assert main(["bench", "--json"]) == status

    lines = json.loads(capsys.readouterr().out)["times"]
    peers = [bench.MAKERS[name]() for name in bench.MAKERS if find_spec(name)]
    assert len(lines) == sum(map(len, peers)) * len(bench.SHAPES) * len(bench.NAMES)
    assert {line["peer_/_ours"] for line in lines} <= {1.5}
    assert {line["steady"] for line in lines} <= {"no" if status else "yes"}


def test_bench_times_nothing_without_a_peer():
    done = run_bare("bench")

    assert done.returncode == 0, done.stderr
    assert "beside the peer" in done.stdout


# The tour -------------------------------------------------------------------------------------------------------------


def test_the_tour_classifies_95_percent_of_the_held_out_digits(toured):
    libraries = ["numpy", "jax"] if find_spec("jax") else ["numpy"]

    assert [row["library"] for row in toured["training"]] == libraries
    assert all(row["test_accuracy"] >= 0.95 for row in toured["training"])


def test_the_tour_reaches_the_same_weights_with_numpy_and_with_jax(toured):
    pytest.importorskip("jax")
    (agreement,) = toured["agreement"]
    steps = [row["newton_steps"] for row in toured["training"]]
    # The loss is strongly convex: a weight is off by at most |gradient| / penalty.
    distance = sum(row["gradient_norm"] for row in toured["training"]) / tour.PENALTY

    assert agreement["largest_difference"] <= distance < 1e-9
    assert agreement["same_test_predictions"] == 1
    assert steps[0] == steps[1]


def test_the_tour_grows_diffuse_with_the_penalty(toured):
    rows = toured["regularisation"]

    assert len(rows) >= 5
    assert [row["penalty"] for row in rows] == sorted(row["penalty"] for row in rows)
    assert np.all(np.diff([row["entropy"] for row in rows]) > 0)
    assert np.all(np.diff([row["confidence"] for row in rows]) < 0)
    assert all(row["same_top"] > 0.85 and row["same_pairs"] > 0.8 for row in rows)


def test_the_tour_grows_diffuse_with_the_temperature_and_keeps_the_order(toured):
    rows = toured["temperature"]

    assert (rows[0]["temperature"], rows[-1]["temperature"]) == (0, "inf")
    assert np.all(np.diff([row["entropy"] for row in rows]) > 0)
    assert (rows[0]["entropy"], rows[-1]["entropy"]) == (0, pytest.approx(math.log(10)))
    assert all(row["top_kept"] == row["order_kept"] == 1 for row in rows)


def test_the_tour_opens_with_what_the_textbook_formula_loses(toured):
    textbook = [row["textbook"] for row in toured["why"]]
    ours = [float(f"{row['softmaxes']:.4g}") for row in toured["why"]]

    assert textbook == ["nan", "-inf", 0, 0]
    assert ours == [1, -800, -4.248e-18, -4.122e-09]


def test_the_tour_names_the_versions_and_the_devices(toured):
    assert {"name": "numpy", "version": version("numpy")} in toured["versions"]
    assert {"library": "numpy", "devices": "cpu"} in toured["devices"]


def test_the_tour_in_a_pipe_is_plain_text_without_progress():
    toured = run(FORCE_COLOR="1")

    assert toured.returncode == 0
    assert toured.stderr == ""
    assert not re.search(r"[\x1b\r]", toured.stdout)
    assert "test accuracy" in toured.stdout
    assert "CC BY 4.0" in toured.stdout


def test_the_tour_needs_nothing_but_the_hard_dependencies():
    toured = run_bare("--json")

    assert toured.returncode == 0, toured.stderr
    (training,) = json.loads(toured.stdout)["training"]
    assert training["library"] == "numpy"
    assert training["test_accuracy"] >= 0.95


def test_training_in_jax_leaves_its_settings_alone():
    jax = pytest.importorskip("jax")
    from softmaxes._cli import _jax

    before = jax.config.jax_enable_x64
    minimum = _jax.train(np.eye(3), np.eye(3), 1.0)

    assert minimum.weights.dtype == "float64"
    assert jax.config.jax_enable_x64 == before


def test_the_digits_are_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()

    for half, digit in enumerate(digits.load()):
        np.testing.assert_array_equal(digit.features[:, :-1], theirs.data[half::2] / 16)
        np.testing.assert_array_equal(digit.labels, theirs.target[half::2])


# info -----------------------------------------------------------------------------------------------------------------


def test_info_is_plain_text_with_versions_devices_and_capabilities():
    report = run("info")

    assert report.returncode == 0
    assert report.stderr == ""
    assert re.search(rf"^python +\w+ {platform.python_version()}$", report.stdout, re.MULTILINE)
    assert re.search(rf"^numpy +{re.escape(version('numpy'))}$", report.stdout, re.MULTILINE)
    assert re.search(r"^numpy +cpu$", report.stdout, re.MULTILINE)
    assert re.search(r"^softmax +e-g--- ", report.stdout, re.MULTILINE)


@pytest.mark.parametrize("arguments", [("info", "--json"), ("--json", "info")])
def test_info_for_machines_is_json(arguments):
    report = json.loads(run(*arguments).stdout)

    assert {"name": "numpy", "version": version("numpy")} in report["versions"]
    assert {"library": "numpy", "devices": "cpu"} in report["devices"]
    assert {row["function"]: row["dask"] for row in report["support"]}["softmax"] == "--gl--"


def test_info_says_what_is_not_installed():
    report = json.loads(run_bare("info", "--json").stdout)

    assert {"library": "jax", "devices": "not installed"} in report["devices"]


# check ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_check_finds_every_promise_kept_on_every_backend():
    checked = run("check", "--json")
    findings = json.loads(checked.stdout)["findings"]

    assert [f for f in findings if not f["passed"]] == []
    assert checked.returncode == 0
    assert {f["backend"] for f in findings} == {backend.name for backend in installed()}


def test_check_measures_every_budget_on_the_hard_dependencies_alone():
    checked = run_bare("check", "--json")
    findings = json.loads(checked.stdout)["findings"]

    assert checked.returncode == 0, checked.stdout
    assert {f["backend"] for f in findings} == {"numpy"}
    assert {f["dtype"] for f in findings} > {"float16", "float32", "float64"}
    accuracy = {f["quantity"] for f in findings if f["section"] == "accuracy"}
    assert accuracy == BUDGETS.keys() - {"sum of softmax", "order of softmax"}


@pytest.mark.usefixtures("on_numpy_alone")
def test_check_prints_what_was_measured_and_returns_0(capsys):
    assert main(["check"]) == 0

    printed = capsys.readouterr()
    assert printed.err == ""
    assert "breaches: 0" in printed.out
    assert "BREACH" not in printed.out
    assert re.search(r"^numpy +log_softmax +6( +\d\.?\d*){3,4}$", printed.out, re.MULTILINE)
    assert re.search(r"^several \+inf +ok$", printed.out, re.MULTILINE)


def textbook(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


@pytest.mark.usefixtures("on_numpy_alone")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_check_returns_1_for_a_softmax_by_the_textbook(monkeypatch, capsys):
    monkeypatch.setattr(sm, "softmax", textbook)

    assert main(["check"]) == 1
    assert "BREACH" in capsys.readouterr().out


@pytest.mark.usefixtures("on_numpy_alone")
@pytest.mark.parametrize(
    ("name", "replacement", "quantity"),
    [
        ("log_softmax", lambda x, **_: np.log(textbook(x)), "log_softmax"),
        ("logsumexp", lambda x, **_: np.max(x, axis=-1), "logsumexp"),
        ("jvp", lambda f, x, v, **_: (f(x), f(x) * v), "1'J = 0"),
        ("vjp", lambda f, x, **_: (f(x), lambda u: f(x) * u), "<u, J v> = <J'u, v>"),
        ("hvp", lambda f, x, v, **_: 0 * v, "logsumexp Hessian row"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_check_returns_1_and_names_what_is_broken(name, replacement, quantity, monkeypatch, capsys):
    monkeypatch.setattr(sm, name, replacement)

    assert main(["check", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert quantity in {f["quantity"] for f in findings if not f["passed"]}


@pytest.mark.usefixtures("on_numpy_alone")
def test_check_reports_a_function_that_fails_as_infinitely_wrong(monkeypatch, capsys):
    def fails(x, **_):
        raise RuntimeError("out of order")

    monkeypatch.setattr(sm, "logsumexp", fails)

    assert main(["check", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    broken = [f for f in findings if f["quantity"] == "logsumexp"]
    assert {(f["error"], f["where"]) for f in broken} == {("inf", "RuntimeError: out of order")}


def test_what_check_takes_for_true_agrees_with_ball_arithmetic():
    regimes, scores, tangents, ours = sample("float64")

    assert set(regimes) == set(REGIMES)
    for row, (regime, x, v) in enumerate(zip(regimes, scores, tangents, strict=True)):
        for value, theirs in (
            (ours.softmax, truth.softmax(x)),
            (ours.log_softmax, truth.log_softmax(x)),
            (ours.logsumexp, truth.logsumexp(x)),
            (ours.product, truth.softmax_jvp(x, v).value),
            (ours.hessian_row, truth.logsumexp_hessian_row_at_top(x)),
        ):
            # The nearest double, and so at most half an ulp away.
            error = ulp_error(np.asarray(value.nearest[row]), theirs, "float64")
            assert np.max(error) <= 0.5, regime


def test_what_check_takes_for_true_tells_the_part_beyond_a_double():
    tied = exact(np.array([[0.0, 0.0, 0.0]]), np.zeros((1, 3)), FORMATS["float32"]).softmax
    ulp = 2.0**-25  # of float32 at 1/3

    assert tied.ulp[0, 0] == ulp
    assert tied.errors(np.float64(np.float32(1 / 3)))[0, 0] == pytest.approx(1 / 3)


# All of it ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["unheard-of"], ["--unheard-of"], ["check", "--unheard-of"], ["info", "more"]]
)
def test_a_wrong_call_explains_the_usage_and_returns_2(arguments):
    refused = run(*arguments)

    assert refused.returncode == 2
    assert refused.stderr.startswith("usage: python -m softmaxes")
    assert refused.stdout == ""


def test_an_interrupt_returns_130_without_a_traceback(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(tour, "tables", interrupted)

    assert main([]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_reader_who_leaves_gets_no_traceback():
    with subprocess.Popen(
        [sys.executable, "-m", "softmaxes", "info"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


SHOW = """
from softmaxes._cli.report import Table, track, write

assert list(track("abc", "spelling", 3)) == ["a", "b", "c"]
write([Table("t", "Title", {"case": "", "kept": ""}, [("one", True), ("two", False)], "Text.")])
"""


def on_a_terminal(script, **environment):
    """Run a script with a terminal for its output, and return what appears there."""
    pty = pytest.importorskip("pty", reason="POSIX only")
    screen, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        seen = b"".join(iter(lambda: read(screen), b""))
    os.close(screen)
    assert process.returncode == 0, seen
    return seen.decode()


def read(screen):
    try:
        return os.read(screen, 1 << 16)
    except OSError:  # how Linux says that nobody writes any more
        return b""


def test_a_terminal_shows_progress_and_colour():
    pytest.importorskip("rich")

    seen = on_a_terminal(SHOW, NO_COLOR="")

    assert "spelling" in seen
    assert "\x1b[1;31mBREACH" in seen


def test_a_terminal_shows_no_colour_where_none_is_wanted():
    pytest.importorskip("rich")

    seen = on_a_terminal(SHOW, NO_COLOR="1")

    assert "spelling" in seen
    assert "BREACH" in seen
    assert not re.search(r"\x1b\[[\d;]*m", seen)


def test_a_terminal_without_rich_shows_a_count_and_plain_text():
    seen = on_a_terminal(WITHOUT_OPTIONAL + SHOW)

    assert "spelling 3/3\r" in seen
    assert "\x1b" not in seen
    assert "two   BREACH" in seen
