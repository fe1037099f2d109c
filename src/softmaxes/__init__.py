"""
softmax, log_softmax and logsumexp with closed-form derivatives, for any array API library.

The result has the array type, the device and, where it is real floating, the dtype of the input.
"""

from softmaxes._functions import log_softmax, logsumexp, softmax
from softmaxes.derivatives import hvp, jacobian, jvp, vjp

__all__ = ["hvp", "jacobian", "jvp", "log_softmax", "logsumexp", "softmax", "vjp"]
