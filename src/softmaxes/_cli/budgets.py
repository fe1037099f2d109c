"""The accuracy that `softmaxes` promises; tests, docs and ``check`` all read it here."""

from __future__ import annotations

__all__ = ["BUDGETS", "HALF_BUDGET", "HALVES", "budget"]

# Largest error, in ulp of the exact value unless a comment names another scale.
BUDGETS: dict[str, float] = {
    "softmax": 8,
    "log_softmax": 6,
    "logsumexp": 6,  # ulp of max(|max x|, |logsumexp x|)
    "logsumexp gradient": 8,
    "log_softmax gradient at the label": 6,
    "cross_entropy": 6,  # no label negative
    "cross_entropy gradient": 6,  # by the scores; ulp of Q p + q, of the others' where p > 1/2
    "kl_divergence": 6,
    "kl_divergence gradient": 8,  # ulp of p (|r| + sum p |r|), r = log (p / q); the same
    "entropy": 6,
    "entropy gradient": 8,  # ulp of p (|w| + sum p |w|), w = log p less that of the top where p > 1/2
    "softmax JVP": 9,  # ulp of p (|w| + sum p |w|), w the tangent v less v[top] where p[top] > 1/2
    "softmax VJP": 9,  # the same
    "logsumexp Hessian row": 10,  # the row of the top entry
    "sum of softmax": 4,  # |sum p - 1| in units of u, half an ulp of 1; not for the halves
}

# Computed in float32 and rounded once, so correctly rounded but for rare near-ties.
HALVES = ("float16", "bfloat16")
HALF_BUDGET = 0.51


def budget(quantity: str, dtype: str) -> float:
    """Return the largest error allowed for a quantity in a dtype."""
    return HALF_BUDGET if dtype in HALVES else BUDGETS[quantity]
