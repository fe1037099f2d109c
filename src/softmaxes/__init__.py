"""
softmax, log_softmax, logsumexp and losses with closed-form derivatives, for any array API library.

The result has the array type, the device and, where it is real floating, the dtype of the input.
"""

from softmaxes._functions import log_softmax, logsumexp, softmax
from softmaxes.derivatives import hvp, jacobian, jvp, vjp
from softmaxes.losses import cross_entropy, entropy, kl_divergence, linear_cross_entropy

__all__ = [
    "cross_entropy",
    "entropy",
    "hvp",
    "jacobian",
    "jvp",
    "kl_divergence",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "softmax",
    "vjp",
]
