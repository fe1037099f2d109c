"""A loop on the threads of another library, which calls it from C: none of them asks for the interpreter."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable

from softmaxes._backends._numba._numbers import compiled

__all__ = ["in_team"]

NUMBER = ir.IntType(32)


@cache
def in_team(loop: Callable[..., Any]) -> Any:
    """
    Return a compiled function of the address of GNU's `GOMP_parallel`, or its like, a number of threads and
    arguments, which calls the loop with these on so many threads at once, and tells whether none says False.
    """

    def work(parallel: int, workers: int, *arguments: Any) -> bool:
        fails, says_false = _from_c(parallel, workers, loop, arguments)
        if fails:
            raise MemoryError  # as no loop fails otherwise
        return not says_false

    return compiled()(work)


def _from_c(parallel: int, workers: int, loop: Any, arguments: Any) -> tuple[bool, bool]:
    raise NotImplementedError


@type_callable(_from_c)
def _typed(context: Any) -> Any:
    def typed(parallel: Any, workers: Any, loop: Any, arguments: Any) -> Any:
        loop.get_call_type(context, tuple(arguments), {})  # by which it is compiled
        return types.UniTuple(types.boolean, 2)

    return typed


def _emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    parallel, workers, _, arguments = values
    *_, loop, kinds = signature.args
    told = [cgutils.alloca_once_value(builder, cgutils.false_bit) for _ in range(2)]
    known = cgutils.pack_struct(builder, [arguments, *told])
    place = builder.bitcast(cgutils.alloca_once_value(builder, known), cgutils.voidptr_t)
    share = _share(context, builder, loop.dispatcher, kinds, known.type)
    of = ir.FunctionType(ir.VoidType(), [share.type, place.type, NUMBER, NUMBER])
    function = builder.inttoptr(parallel, of.as_pointer())
    no_flags = ir.Constant(NUMBER, 0)
    builder.call(function, [share, place, builder.trunc(workers, NUMBER), no_flags])
    return context.make_tuple(builder, signature.return_type, map(builder.load, told))


lower_builtin(_from_c, *(types.Any,) * 4)(_emit)


def _share(context: Any, builder: Any, loop: Any, kinds: Any, known: Any) -> Any:
    """Return a function of C, of where the arguments of the loop are, and where to tell how it ends."""
    found = loop.overloads[tuple(kinds)]
    context.add_linking_libs([found.library])
    of = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t])
    function = ir.Function(builder.module, of, builder.module.get_unique_name("share"))
    function.linkage = "internal"
    inside = ir.IRBuilder(function.append_basic_block())
    place = inside.bitcast(function.args[0], known.as_pointer())
    arguments, fails, says_false = cgutils.unpack_tuple(inside, inside.load(place))
    values = cgutils.unpack_tuple(inside, arguments)
    status, y = context.call_internal_no_propagate(inside, found.fndesc, found.signature, values)
    with inside.if_then(status.is_error, likely=False):
        inside.store(cgutils.true_bit, fails)
    if found.signature.return_type == types.boolean:
        with inside.if_then(inside.not_(y)):
            inside.store(cgutils.true_bit, says_false)
    inside.ret_void()
    return function
