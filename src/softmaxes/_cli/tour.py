"""``python -m softmaxes``: why the package exists, and what it is for, on handwritten digits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import softmaxes as sm
from softmaxes._cli import classifier, info
from softmaxes._cli.backends import namespace
from softmaxes._cli.digits import SOURCE, Digits, load
from softmaxes._cli.newton import Minimum
from softmaxes._cli.report import Table, track

__all__ = ["tables"]

Array = NDArray[np.floating[Any]]

PENALTY = 1e-4
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
TEMPERATURES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0, 64.0, math.inf)


def tables() -> Iterator[Table]:
    """Yield the tour's tables, each as soon as it is computed."""
    yield why()
    training, held_out = load()
    minima = dict(_train(training))
    yield classifiers(minima, training, held_out)
    if len(minima) == 2:
        yield agreement(minima, held_out)
    yield regularisation(training, held_out)
    yield temperature(held_out.features @ minima["numpy"].weights)
    yield info.versions(("softmaxes", "numpy", "jax", "jaxlib"))
    yield info.devices(("numpy", "jax"))


WHY = """\
exp(710) overflows. exp(-800) underflows to 0, and its logarithm is -inf. Beside 1, exp(-40)
vanishes in the sum, and with it the loss; in float32 so does exp(-20), and with it the gradient."""


def why() -> Table:
    """Set the textbook formula beside the functions of `softmaxes`."""
    columns = {"expression": "", "textbook": ".4g", "softmaxes": ".4g"}
    with np.errstate(all="ignore"):
        rows = [(name, float(theirs), float(ours)) for name, theirs, ours in _comparisons()]
    return Table("why", "Why not exp(x) / sum(exp(x))?", columns, rows, WHY)


def _comparisons() -> Iterator[tuple[str, Any, Any]]:
    x = [710.0, 0.0]
    yield "softmax([710, 0])[0]", _textbook(x)[0], sm.softmax(x)[0]
    x = [0.0, -800.0]
    yield "log_softmax([0, -800])[1]", np.log(_textbook(x)[1]), sm.log_softmax(x)[1]
    x = [0.0, -40.0]
    yield "log_softmax([0, -40])[0]", np.log(_textbook(x)[0]), sm.log_softmax(x)[0]
    z = np.array([20, 0, 0], dtype=np.float32)
    _, pullback = sm.vjp(sm.log_softmax, z)
    gradient = pullback(np.array([-1, 0, 0], dtype=np.float32))
    yield "d/dz0 of -log p0, z = [20, 0, 0], float32", _textbook(z)[0] - 1, gradient[0]


def _textbook(x: list[float] | Array) -> Array:
    e = np.exp(x)
    return np.asarray(e / e.sum())


def _train(training: Digits) -> Iterator[tuple[str, Minimum]]:
    targets = np.eye(10)[training.labels]
    trainers = {"numpy": classifier.train}
    if namespace("jax"):
        from softmaxes._cli import _jax

        trainers["jax"] = _jax.train
    for library in track(trainers, "training", len(trainers)):
        yield library, trainers[library](training.features, targets, PENALTY)


TRAINING = """\
Minimises mean -log p(label) + penalty/2 |W|^2, penalty {penalty:g}, from W = 0 in float64.
Every other image trains, the others test: {training} and {held_out} of them.
Data: {source}"""
DERIVATIVES = {"numpy": "sm.vjp, sm.hvp", "jax": "jax.grad, jax.jvp, jax.jit"}


def classifiers(minima: Mapping[str, Minimum], training: Digits, held_out: Digits) -> Table:
    """Tabulate one classifier per library."""
    columns = {
        "library": "",
        "derivatives": "",
        "newton_steps": "d",
        "gradient_norm": ".1e",
        "training_accuracy": ".2%",
        "test_accuracy": ".2%",
    }
    rows = [
        (library, DERIVATIVES[library], steps, norm, _accuracy(w, training), _accuracy(w, held_out))
        for library, (w, steps, norm) in minima.items()
    ]
    text = TRAINING.format(
        penalty=PENALTY,
        training=len(training.labels),
        held_out=len(held_out.labels),
        source=SOURCE,
    )
    if "jax" not in minima:
        text += "\nJAX is not installed: trained in NumPy alone."
    return Table("training", "A softmax classifier of handwritten digits", columns, rows, text)


def agreement(minima: Mapping[str, Minimum], held_out: Digits) -> Table:
    """Compare the weights that NumPy and JAX found."""
    ours, theirs = (np.asarray(found.weights) for found in minima.values())
    same = np.argmax(held_out.features @ ours, -1) == np.argmax(held_out.features @ theirs, -1)
    return Table(
        "agreement",
        "The weights from NumPy beside those from JAX",
        {"largest_weight": ".3g", "largest_difference": ".1e", "same_test_predictions": ".2%"},
        [(float(np.max(np.abs(ours))), float(np.max(np.abs(ours - theirs))), float(same.mean()))],
        "The penalty makes the loss strictly convex, so there is one minimiser to reach.",
    )


REGULARISATION = f"""\
Confidence is the mean of the largest probability; entropy is the mean in nats, at most ln 10 = 2.3026.
Against penalty {PENALTIES[0]:g}: same top is the share of test images with the same most probable class, same
ranking the share with the same order of all ten, same pairs the share of pairs of classes in the same order."""


def regularisation(training: Digits, held_out: Digits) -> Table:
    """Retrain over decades of the penalty."""
    columns = {
        "penalty": "g",
        "test_accuracy": ".2%",
        "confidence": ".4f",
        "entropy": ".4f",
        "same_top": ".2%",
        "same_ranking": ".2%",
        "same_pairs": ".2%",
    }
    weights = list(_retrain(training))
    scores = [held_out.features @ w for w in weights]
    rows = [
        (penalty, _accuracy(w, held_out), *_diffusion(z, 1.0), *_ranking(z, scores[0]))
        for penalty, w, z in zip(PENALTIES, weights, scores, strict=True)
    ]
    title = "Retrained with a larger penalty"
    return Table("regularisation", title, columns, rows, REGULARISATION)


def _retrain(training: Digits) -> Iterator[Array]:
    targets = np.eye(10)[training.labels]
    for penalty in track(PENALTIES, "retraining", len(PENALTIES)):
        yield classifier.train(training.features, targets, penalty).weights


def temperature(scores: Array) -> Table:
    """Divide the scores of the trained classifier by a temperature."""
    rows = [(t, *_diffusion(scores, t), *_kept(scores, t)) for t in TEMPERATURES]
    return Table(
        "temperature",
        "The same weights at another temperature",
        {
            "temperature": "g",
            "confidence": ".4f",
            "entropy": ".4f",
            "top_kept": ".2%",
            "order_kept": ".2%",
        },
        rows,
        "Top kept: share of test images where the class of the largest score has the largest probability.\n"
        "Order kept: share where no pair of classes changes places; equal probabilities count as kept.",
    )


class Diffusion(NamedTuple):
    """Mean largest probability, and mean entropy in nats."""

    confidence: float
    entropy: float


def _diffusion(scores: Array, temperature: float) -> Diffusion:
    p = sm.softmax(scores, temperature=temperature)
    log_p = sm.log_softmax(scores, temperature=temperature)
    entropy = -np.sum(p * np.where(p > 0, log_p, 0), axis=-1)  # 0 log 0 = 0
    return Diffusion(float(p.max(axis=-1).mean()), float(entropy.mean()))


class Ranking(NamedTuple):
    """Shares of rows with the same top and with the same order throughout; share of pairs in order."""

    top: float
    whole: float
    pairs: float


def _ranking(scores: Array, reference: Array) -> Ranking:
    ranked, was_ranked = np.argsort(-scores, axis=-1), np.argsort(-reference, axis=-1)
    same = ranked == was_ranked
    first, second = np.triu_indices(scores.shape[-1], k=1)
    ahead, was_ahead = (s[:, first] > s[:, second] for s in (scores, reference))
    pairs = (ahead == was_ahead).mean()
    return Ranking(float(same[:, 0].mean()), float(same.all(axis=-1).mean()), float(pairs))


def _kept(scores: Array, temperature: float) -> tuple[float, float]:
    p = sm.softmax(scores, temperature=temperature)
    descending = np.take_along_axis(p, np.argsort(-scores, axis=-1), axis=-1)
    top = descending[:, 0] == p.max(axis=-1)
    return float(top.mean()), float((np.diff(descending) <= 0).all(axis=-1).mean())


def _accuracy(weights: Any, digits: Digits) -> float:
    predicted = np.argmax(digits.features @ np.asarray(weights), axis=-1)
    return float((predicted == digits.labels).mean())
