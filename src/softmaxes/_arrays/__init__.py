"""
What every function asks of its arguments: one library, real dtypes, valid axes, fitting shapes.

The only package that asks array-api-compat. Every error names the argument, what it was and what
was expected.
"""

from softmaxes._arrays._calls import (
    Arrays,
    Call,
    Outline,
    call_without_scores,
    checked,
    checked_like,
    is_alone,
    outlined,
)
from softmaxes._arrays._kinds import (
    EAGER_JAX,
    Array,
    Namespace,
    as_array,
    device,
    familiar,
    is_compiled_by_torch,
    is_kind,
    last_name,
    library,
    namespace_of,
    quiet,
    replaced,
    result_dtype,
    unwrapped,
)
from softmaxes._arrays._pieces import checked_alike, checked_slices, checked_values, zeros
from softmaxes._arrays._products import Factors, Product, checked_product
from softmaxes._arrays._shapes import (
    Axes,
    Axis,
    are_single,
    broadcast,
    known_lengths,
    shape_of,
    with_axes,
)
from softmaxes._arrays._trees import leaves, mapped

__all__ = [
    "EAGER_JAX",
    "Array",
    "Arrays",
    "Axes",
    "Axis",
    "Call",
    "Factors",
    "Namespace",
    "Outline",
    "Product",
    "are_single",
    "as_array",
    "broadcast",
    "call_without_scores",
    "checked",
    "checked_alike",
    "checked_like",
    "checked_product",
    "checked_slices",
    "checked_values",
    "device",
    "familiar",
    "is_alone",
    "is_compiled_by_torch",
    "is_kind",
    "known_lengths",
    "last_name",
    "leaves",
    "library",
    "mapped",
    "namespace_of",
    "outlined",
    "quiet",
    "replaced",
    "result_dtype",
    "shape_of",
    "unwrapped",
    "with_axes",
    "zeros",
]
