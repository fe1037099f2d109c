"""
Dask: one task per chunk, and for slices cut into chunks one reduction of the mergeable state.

Where every slice lies in one chunk, any formula is one task, in the library of the chunk. Where not,
a function that has a formula of the state (see `_states`) reduces the state of the chunks in a tree,
and is then one more task per chunk, which reads again what is read from a store. Any other formula is
served by the standard, one operation of Dask after the other. The only file that says `import dask`.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial, reduce
from typing import Any, TypeAlias

import dask.array as da
from array_api_compat.dask import array as xp
from dask._task_spec import Task
from dask.array.utils import meta_from_array
from dask.blockwise import Blockwise
from dask.core import flatten
from dask.delayed import Delayed
from dask.graph_manipulation import clone
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from softmaxes import _backends, _states
from softmaxes._arrays import (
    Array,
    Arrays,
    Axes,
    Call,
    Namespace,
    device,
    last_name,
    leaves,
    library,
    mapped,
    namespace_of,
    quiet,
    replaced,
)
from softmaxes._primals import excess, maximum
from softmaxes._rules import Rule

__all__ = ["apply", "evaluate", "silenced", "without_empty_chunks"]

OnChunks: TypeAlias = Callable[..., Any]  # of the call in the library of the chunks, and of these


def apply(rule: Rule, call: Call) -> Array:
    """Return the rule's function of the call's arrays."""
    arrays = mapped(without_empty_chunks, of_one_library(call.arrays))
    formula = getattr(_states, rule.primal.__name__, None)
    has_options = any(a is not None for a in arrays[2:])  # beside x and where
    if formula is None or has_options or _are_whole(call, arrays):
        return evaluate(rule.primal, call, arrays)
    state = _state(call, arrays)
    if rule.reduces:
        return _by_chunks(partial(_of_state, formula), True, call, state)
    of = partial(_backends.evaluate, _states.Reading(formula))
    return _by_chunks(of, False, call, mapped(_read_anew, arrays), state)


def evaluate(f: Callable[..., Array], call: Call, *arguments: Any) -> Array:
    """Return f(*arguments), computed in the working precision."""
    arguments = mapped(without_empty_chunks, of_one_library(arguments))
    if not _are_whole(call, arguments):
        y = _backends.by_the_standard(f, call._replace(xp=_namespace(arguments)), *arguments)
        return silenced(y, arguments)
    of = partial(_backends.evaluate, f)
    return _by_chunks(of, _reduces(of, call, arguments), call, *arguments)


def of_one_library(arguments: Any) -> Any:
    """Return the arrays in the library of the chunks; what is made of numbers has those of NumPy."""
    home = _home(arguments)
    return arguments if home is None else mapped(partial(_at_home, home), arguments)


def _home(arguments: Any) -> Array | None:
    """Return an empty array of the library of the chunks, None where that is NumPy."""
    metas = (a._meta for a in leaves(arguments))
    return next((m for m in metas if library(namespace_of(m)) != "numpy"), None)


def _at_home(home: Array, a: Array) -> Array:
    if library(namespace_of(a._meta)) != "numpy":
        return a
    return a.map_blocks(partial(_made_there, home), dtype=a.dtype, meta=_made_there(home, a._meta))


def _made_there(home: Array, a: Array) -> Array:
    return namespace_of(home).asarray(a, device=device(home))


def silenced(y: Array, arguments: Any) -> Array:
    """Return y without the warnings of NumPy in the operations between the arguments and it."""
    before = {name for a in leaves(arguments) for name in a.dask.layers}
    layers = y.dask.layers.items()
    layers = {name: a if name in before else _silent_layer(a) for name, a in layers}
    return da.Array(HighLevelGraph(layers, y.dask.dependencies), y.name, y.chunks, meta=y)


def _silent_layer(layer: Any) -> Any:
    if not isinstance(layer, Blockwise):
        return MaterializedLayer({key: _silent_task(layer[key]) for key in layer})
    layer = copy(layer)
    layer.task = _silent_task(layer.task)
    return layer


def _silent_task(task: Any) -> Any:
    if isinstance(task, Task):
        return Task(task.key, partial(_silently, task.func), *task.args, **task.kwargs)
    is_call = isinstance(task, tuple) and callable(task[0])
    return (partial(_silently, task[0]), *task[1:]) if is_call else task


def _silently(f: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with quiet(da):
        return f(*arguments, **options)


def _are_whole(call: Call, arguments: Any) -> bool:
    """Tell whether every slice lies in one chunk."""
    return all(a.numblocks[axis] == 1 for a in leaves(arguments) for axis in call.axis)


def without_empty_chunks(a: Array) -> Array:
    # Dask broadcasts any axis of length 1, and takes it to be one chunk.
    for axis, lengths in enumerate(a.chunks):
        filled = [i for i, n in enumerate(lengths) if n != 0] or [0]
        if len(filled) < len(lengths):
            a = a.blocks[(*(slice(None),) * axis, filled)]
    return a


def _read_anew(a: Array) -> Array:
    """Return what is read from a store as another array of the same, so that it need not be kept."""
    layer = a.dask.layers.get(a.name)
    if not (isinstance(layer, Blockwise) and layer.task.data_producer):
        return a
    stores = [Delayed(name, a.dask) for name in a.dask.dependencies[a.name]]
    return clone(a, omit=stores, seed="softmaxes")


def _max(a: Array, *, axis: Axes, keepdims: bool) -> Array:
    """Return the maximum, also of chunks that turn out to be empty, which that of Dask refuses."""

    def largest(chunk: Array, axis: Axes, keepdims: bool) -> Array:
        return maximum(Arrays(chunk), axis=axis, xp=namespace_of(chunk))

    return da.reduction(a, largest, largest, axis=axis, keepdims=keepdims, dtype=a.dtype)


XP = replaced(xp, max=_max)


def _namespace(arguments: Any) -> Namespace:
    """Return the namespace in which what is made has chunks like those of the arguments."""
    home = _home(arguments)
    if home is None:
        return XP
    return replaced(XP, arange=lambda *a, **options: _at_home(home, xp.arange(*a, **options)))


def _state(call: Call, arrays: Arrays) -> Array:
    """Return the state of the slices: an array of Dask with a tuple of arrays for a chunk."""
    states = _by_chunks(_piece, True, call, arrays)
    return da.reduction(
        states,
        lambda state, axis, keepdims: state,
        _merged,
        axis=call.axis,
        keepdims=True,
        dtype=call.working,
        concatenate=False,
        meta=states._meta,
    )


def _piece(call: Call, arrays: Arrays) -> _states.State:
    call = call._replace(dtype=call.working)
    fields = (_backends.evaluate(f, call, arrays) for f in (maximum, excess))
    return _states.State(*_backends.compute(_states.piece, *fields, None, xp=call.xp))


def _merged(states: Any, axis: Axes, keepdims: bool) -> _states.State:
    states = list(flatten(states))
    merge = partial(_backends.compute, _states.merge, xp=namespace_of(states[0].maximum))
    merged: _states.State = reduce(merge, states)
    return merged


def _of_state(formula: Callable[..., Array], call: Call, state: _states.State) -> Array:
    y = _backends.compute(formula, state, xp=call.xp)
    return call.xp.astype(y, call.dtype, copy=False)


def _by_chunks(of: OnChunks, reduces: bool, call: Call, *arguments: Any) -> Array:
    """Return of(call, *arguments) for all the chunks, with slices of length 1 if it reduces."""
    arrays = leaves(arguments)
    widest = max(arrays, key=lambda a: a.ndim)
    axes = (tuple(range(-a.ndim, 0)) for a in arrays)
    return da.blockwise(
        partial(
            _on_chunks,
            of,
            call._replace(arrays=Arrays(None), xp=None),
            mapped(lambda _: 0, arguments),
        ),
        tuple(range(-widest.ndim, 0)),
        *(part for pair in zip(arrays, axes, strict=True) for part in pair),
        token="softmaxes",
        adjust_chunks=dict.fromkeys(call.axis, 1) if reduces else None,
        meta=meta_from_array(widest, dtype=call.dtype),
    )


def _reduces(of: OnChunks, call: Call, arguments: Any) -> bool:
    def small(a: Array) -> Array:
        axes = range(-a.ndim, 0)
        shape = tuple(2 if i in call.axis and a.shape[i] != 1 else 1 for i in axes)
        return namespace_of(a._meta).ones(shape, dtype=a.dtype)

    y = _on_chunks(of, call, arguments, *map(small, leaves(arguments)))
    return all(y.shape[axis] == 1 for axis in call.axis)


def _on_chunks(of: OnChunks, call: Call, template: Any, *chunks: Any) -> Any:
    first = leaves(chunks)[0]
    xp = namespace_of(first)
    working, dtype = (getattr(xp, last_name(d), d) for d in (call.working, call.dtype))
    given = iter(chunks)
    arguments = mapped(partial(_beside, first), mapped(lambda _: next(given), template))
    return of(call._replace(working=working, dtype=dtype, xp=xp), *arguments)


def _beside(first: Array, a: Array) -> Array:
    """Return a number as one of the library of the first chunk, of which Dask may not know."""
    is_number = a.size == 1 and library(namespace_of(a)) == "numpy"
    return _made_there(first, a) if is_number and namespace_of(first) is not namespace_of(a) else a
