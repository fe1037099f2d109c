"""
The derivatives: one rule per formula, under the same name, in array API operations only.

Every rule is a function of the probabilities p = softmax(x), so p (or x, where p is not at hand) is
all that a backward pass keeps besides the options. The probabilities sum to one, so a constant
added to all scores changes nothing: J 1 = 0 and 1ᵀ J = 0 for the covariance J = diag(p) - p pᵀ. The
rules use both exactly. Where one probability exceeds 1/2 they subtract its tangent from all others,
and set its row to minus the sum of the others. That *centring* is what keeps derivatives relatively
accurate at a confident row, where 1 - p rounds to 0.

An entry with p = 0 is multiplied by nothing: whatever the tangent holds there, even NaN, is left
out by `where`.
"""

from softmaxes._rules._ingredients import ingredients
from softmaxes._rules._losses import (
    cross_entropy,
    entropy,
    kl_divergence,
    log_ratio,
    reference,
    shifted,
    targets,
)
from softmaxes._rules._normalisers import (
    density,
    excess,
    log_softmax,
    logsumexp,
    maximum,
    softmax,
)
from softmaxes._rules._rule import Rule

__all__ = [
    "Rule",
    "cross_entropy",
    "density",
    "entropy",
    "excess",
    "ingredients",
    "kl_divergence",
    "log_ratio",
    "log_softmax",
    "logsumexp",
    "maximum",
    "reference",
    "shifted",
    "softmax",
    "targets",
]
