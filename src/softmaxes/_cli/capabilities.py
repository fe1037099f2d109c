"""What works where: one statement, of which the tests, the documentation and ``info`` are made."""

from __future__ import annotations

import softmaxes as sm
from softmaxes import online
from softmaxes._cli.report import Table

__all__ = ["CAPABILITIES", "ENGINES", "FUNCTIONS", "LIBRARIES", "supported", "table"]

CAPABILITIES = {
    "eager": "the call computes its result",
    "compiled": "by jax.jit, and by torch.compile(fullgraph=True)",
    "gradient": "by the engine of the library; by softmaxes.vjp where it has none",
    "lazy": "nothing is computed before it is asked for",
    "vmap": "by jax.vmap and torch.func.vmap",
    "device": "the result is on the device of the arguments, of which there may be several",
}

# name on the command line -> what a function can do with the arrays of the library
LIBRARIES = {
    "numpy": ("eager", "gradient"),
    "array-api-strict": ("eager", "gradient", "device"),
    "jax": ("eager", "compiled", "gradient", "vmap", "device"),
    "torch": ("eager", "compiled", "gradient", "vmap", "device"),
    "dask": ("gradient", "lazy"),
    "cupy": ("eager", "gradient", "device"),
}
ENGINES = ("jax", "torch")  # the libraries that differentiate

# The functions that `vjp` takes. The others have a gradient where there is an engine.
RULES = (
    "cross_entropy",
    "entropy",
    "kl_divergence",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "softmax",
)

# All but those that take no array.
FUNCTIONS = (
    *sm.__all__,
    *(f"online.{name}" for name in online.__all__ if name not in ("State", "empty")),
)


def supported(function: str, library: str) -> tuple[str, ...]:
    """Return the capabilities of a function with the arrays of a library."""
    has_gradient = library in ENGINES or function in RULES
    return tuple(c for c in LIBRARIES[library] if c != "gradient" or has_gradient)


def table() -> Table:
    """Tabulate the capabilities by their first letters."""
    rows = [(function, *(_letters(function, name) for name in LIBRARIES)) for function in FUNCTIONS]
    legend = "\n".join(f"{name[0]}  {name}: {meaning}" for name, meaning in CAPABILITIES.items())
    columns = dict.fromkeys(("function", *LIBRARIES), "")
    return Table("support", "What works where", columns, rows, legend)


def _letters(function: str, library: str) -> str:
    can = supported(function, library)
    return "".join(name[0] if name in can else "-" for name in CAPABILITIES)
