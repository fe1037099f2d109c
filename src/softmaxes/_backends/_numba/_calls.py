"""What compiled code and C have of each other: memory by its address, and functions by theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, type_callable
from numba.np.numpy_support import carray

from softmaxes._backends._numba._numbers import inlined
from softmaxes._backends._numba._vectors import lowered

__all__ = [
    "SAID_FALSE",
    "address_of",
    "as_c",
    "call",
    "freed",
    "fresh",
    "leave_to",
    "matrix_at",
    "refuse_failure",
    "word_at",
    "words_at",
]

WORD = ir.IntType(64)
FAILED, SAID_FALSE = 1, 2
LEFT = "softmaxes_left"


def word_at(address: Any) -> int:
    """Return the 64 bits at an address."""
    raise NotImplementedError


@lowered(word_at, lambda address: types.int64)
def _word_at(context: Any, builder: Any, signature: Any, address: Any) -> Any:
    return builder.load(builder.inttoptr(address, WORD.as_pointer()))


def _pointer(address: Any) -> Any:
    raise NotImplementedError


@lowered(_pointer, lambda address: types.voidptr)
def _as_pointer(context: Any, builder: Any, signature: Any, address: Any) -> Any:
    return builder.inttoptr(address, cgutils.voidptr_t)


@inlined()
def matrix_at(address: int, rows: int, columns: int, dtype: Any) -> Any:
    """Return the array at an address, which must live on elsewhere."""
    return carray(_pointer(address), (rows, columns), dtype)


@inlined()
def words_at(address: int, n: int) -> Any:
    return carray(_pointer(address), n, np.int64)


def call(address: Any, arguments: Any) -> int:
    """Call the function of C at an address with arguments of 64 bits, and return the bits that it returns."""
    raise NotImplementedError


@lowered(call, lambda address, arguments: types.int64)
def _call(context: Any, builder: Any, signature: Any, address: Any, arguments: Any) -> Any:
    values = cgutils.unpack_tuple(builder, arguments)
    of = ir.FunctionType(WORD, [WORD] * len(values))
    return builder.call(builder.inttoptr(address, of.as_pointer()), values)


def fresh(size: Any) -> int:
    """Return the address of so many bytes of the system's memory."""
    raise NotImplementedError


def freed(address: Any) -> int:
    """Give memory back to the system."""
    raise NotImplementedError


def _from_libc(name: str, function: Any) -> None:
    @lowered(function, lambda number: types.int64)
    def emit(context: Any, builder: Any, signature: Any, number: Any) -> Any:
        of = ir.FunctionType(WORD, [WORD])
        return builder.call(cgutils.get_or_insert_function(builder.module, of, name), [number])


_from_libc("malloc", fresh)
_from_libc("free", freed)


def as_c(f: Any, arguments: Any) -> tuple[int, int, int]:
    """
    Return addresses: of a function of C, which calls a compiled one with the arguments, and of its only argument.

    The third is that of how the calls ended: `FAILED`, if memory did not suffice for one, `SAID_FALSE`, if one
    returned that, or both. Up to its last call this function must not return, and somebody else must keep the
    arguments alive: to count references, this is their last use.
    """
    raise NotImplementedError


def _typed_as_c(context: Any) -> Any:
    def typed(f: Any, arguments: Any) -> Any:
        f.get_call_type(context, tuple(arguments), {})  # by which it is compiled
        return types.UniTuple(types.int64, 3)

    return typed


def _emit_as_c(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    function, kinds = signature.args
    ends = cgutils.alloca_once_value(builder, ir.Constant(WORD, 0))
    known = cgutils.pack_struct(builder, [values[1], ends])
    place = cgutils.alloca_once_value(builder, known)
    found = function.dispatcher.overloads[tuple(kinds)]
    context.add_linking_libs([found.library])
    addresses = _function_of_c(context, builder.module, found, known.type), place, ends
    words = [builder.ptrtoint(address, WORD) for address in addresses]
    return context.make_tuple(builder, signature.return_type, words)


type_callable(as_c)(_typed_as_c)
lower_builtin(as_c, types.Any, types.Any)(_emit_as_c)


@inlined()
def refuse_failure(ends: int) -> None:
    """Raise what a call from C could not."""
    if word_at(ends) & FAILED:
        raise MemoryError  # as no loop fails otherwise


def _function_of_c(context: Any, module: Any, found: Any, known: Any) -> Any:
    of = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t])
    function = ir.Function(module, of, module.get_unique_name("of_c"))
    function.linkage = "internal"
    inside = ir.IRBuilder(function.append_basic_block())
    arguments, ends = cgutils.unpack_tuple(
        inside, inside.load(inside.bitcast(function.args[0], known.as_pointer()))
    )
    values = cgutils.unpack_tuple(inside, arguments)
    status, y = context.call_internal_no_propagate(inside, found.fndesc, found.signature, values)
    _note(inside, status.is_error, ends, FAILED)
    if found.signature.return_type == types.boolean:
        _note(inside, inside.not_(y), ends, SAID_FALSE)
    inside.ret_void()
    return function


def _note(builder: Any, condition: Any, ends: Any, bit: int) -> None:
    with builder.if_then(condition, likely=False):
        builder.atomic_rmw("or", ends, ir.Constant(WORD, bit), "monotonic")


def address_of(f: Any) -> int:
    """
    Return the address of a function of C, of a word: it returns 0 if a compiled function of the word says True.

    Else, or if memory does not suffice, it returns what the function at the address given to `leave_to` does.
    """
    raise NotImplementedError


def leave_to(address: int) -> None:
    """Name the function of C that does what is left, before any other is compiled or read from disk."""
    binding.add_symbol(LEFT, address)


def _typed_address_of(context: Any) -> Any:
    def typed(f: Any) -> Any:
        f.get_call_type(context, (types.int64,), {})
        return types.int64

    return typed


def _emit_address_of(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    found = signature.args[0].dispatcher.overloads[types.int64,]
    context.add_linking_libs([found.library])
    of = ir.FunctionType(WORD, [WORD])
    function = ir.Function(builder.module, of, builder.module.get_unique_name("of_c"))
    function.linkage = "internal"
    inside = ir.IRBuilder(function.append_basic_block())
    status, y = context.call_internal_no_propagate(
        inside, found.fndesc, found.signature, function.args
    )
    with inside.if_then(inside.and_(status.is_ok, y)):
        inside.ret(ir.Constant(WORD, 0))
    left = cgutils.get_or_insert_function(builder.module, of, LEFT)
    inside.ret(inside.call(left, function.args))
    return builder.ptrtoint(function, WORD)


type_callable(address_of)(_typed_address_of)
lower_builtin(address_of, types.Any)(_emit_address_of)
