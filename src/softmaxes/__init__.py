"""
The softmax family, right on every array library.

One definition, one analytic derivative: pure functions on NumPy, JAX and whatever else speaks the
array API standard. The type, dtype and device of the input are those of the output.
"""

from softmaxes._functions import log_softmax, logsumexp, softmax
from softmaxes.derivatives import hvp, jacobian, jvp, vjp

__all__ = ["hvp", "jacobian", "jvp", "log_softmax", "logsumexp", "softmax", "vjp"]
