"""
Vectors: a few numbers side by side, which compiled code holds in registers.

A loop over numbers LLVM makes into one over vectors with a check before it and numbers one by one at its
end; on a short row these take longer than the rest. A loop over vectors is as it is written. A vector has
the bytes of a line of cache. Memory is that of arrays of two axes, the last of them contiguous. What
it holds as integers of 16 bits are numbers in bfloat16, the upper half of float32, as which they are read.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import (
    lower_builtin,
    lower_cast,
    make_attribute_wrapper,
    models,
    register_model,
    type_callable,
)

__all__ = [
    "BYTES",
    "Memory",
    "add_to",
    "any_of",
    "block_of",
    "either",
    "filled",
    "first_of",
    "first_places",
    "folded",
    "fused",
    "highest_of",
    "kept",
    "kept_first",
    "kept_some",
    "load",
    "load_first",
    "lowered",
    "memory_of",
    "only",
    "part_of",
    "prefetch",
    "room_of",
    "row_of",
    "rows_apart",
    "select",
    "store",
    "store_first",
    "view",
    "without_highest",
]

Memory = Any  # what compiled code has of an array

BYTES = 64
INDEX = ir.IntType(32)


class VectorType(types.Type):
    """So many numbers of a type, or truth values."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(VectorType)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: VectorType) -> None:
        element = manager.lookup(vector.dtype).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def lowered(
    function: Any, typed: Callable[..., Any], first: Any = types.Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let compiled code call a function, by `typed` of its types and what is decorated, of its values."""

    def decorated(emit: Callable[..., Any]) -> Callable[..., Any]:
        def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return emit(context, builder, signature, *values)

        arguments = first, *(types.Any,) * (typed.__code__.co_argcount - 1)
        type_callable(function)(lambda context: typed)
        lower_builtin(function, *arguments)(lower)
        return emit

    return decorated


def _masks(vector: VectorType) -> VectorType:
    return VectorType(types.boolean, vector.lanes)


# From numbers -------------------------------------------------------------------------------------


def filled(a: Any, number: Any) -> Any:
    """Return a vector of one number, in the dtype of an array; of several, as many."""
    raise NotImplementedError


def _typed_filled(a: Any, number: Any) -> Any:
    vector = VectorType(a.dtype, BYTES * 8 // a.dtype.bitwidth)
    return types.UniTuple(vector, len(number)) if isinstance(number, types.BaseTuple) else vector


@lowered(filled, _typed_filled)
def _filled(context: Any, builder: Any, signature: Any, a: Any, number: Any) -> Any:
    return context.cast(builder, number, signature.args[1], signature.return_type)


def _cast(context: Any, builder: Any, number: Any, vector: VectorType, value: Any) -> Any:
    return _repeated(builder, context.cast(builder, value, number, vector.dtype), vector.lanes)


lower_cast(types.Number, VectorType)(_cast)


def _repeated(builder: Any, value: Any, lanes: int) -> Any:
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    alone = builder.insert_element(undefined, value, ir.Constant(INDEX, 0))
    return builder.shuffle_vector(alone, alone, _indices([0] * lanes))


def _indices(numbers: Iterable[int]) -> Any:
    found = [ir.Constant(INDEX, i) for i in numbers]
    return ir.Constant(ir.VectorType(INDEX, len(found)), found)


def first_places(n: Any, like: Any) -> Any:
    """Return the mask of the first n places of a vector."""
    raise NotImplementedError


@lowered(first_places, lambda n, like: _masks(like))
def _first_places(context: Any, builder: Any, signature: Any, n: Any, like: Any) -> Any:
    lanes = like.type.count
    n = _repeated(builder, builder.trunc(n, INDEX), lanes)
    return builder.icmp_signed("<", _indices(range(lanes)), n)


# Operators ----------------------------------------------------------------------------------------

Two = Callable[[Any, Any, Any], Any]  # of a builder and two values


def _operator(of: Any, floats: Two | None, others: Two | None, *, tells: bool = False) -> None:
    """Let compiled code apply an operator to vectors, or to one and a number."""

    def typed(a: Any, b: Any) -> Any:
        if isinstance(a, VectorType) and (b == a or isinstance(b, types.Number)):
            return _masks(a) if tells else a
        return None

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        vector, other = signature.args
        made: Any = floats if isinstance(vector.dtype, types.Float) else others
        a, b = values
        return made(builder, a, context.cast(builder, b, other, vector))

    type_callable(of)(lambda context: typed)
    lower_builtin(of, VectorType, types.Any)(emit)


def _plain(name: str) -> Two:
    return lambda builder, a, b: getattr(builder, name)(a, b)


def _compared(symbol: str) -> Two:
    return lambda builder, a, b: builder.fcmp_ordered(symbol, a, b)


def _chosen(symbol: str) -> Two:
    # As processors do: the second where one is a NaN.
    return lambda builder, a, b: builder.select(builder.fcmp_ordered(symbol, a, b), a, b)


_operator(operator.add, _plain("fadd"), _plain("add"))
_operator(operator.sub, _plain("fsub"), _plain("sub"))
_operator(operator.mul, _plain("fmul"), None)
_operator(operator.truediv, _plain("fdiv"), None)
_operator(operator.and_, None, _plain("and_"))
_operator(operator.or_, None, _plain("or_"))
_operator(operator.lshift, None, _plain("shl"))
_operator(operator.rshift, None, _plain("lshr"))
_operator(operator.lt, _compared("<"), None, tells=True)
_operator(operator.gt, _compared(">"), None, tells=True)
_operator(operator.eq, _compared("=="), None, tells=True)
_operator(min, _chosen("<"), None)
_operator(max, _chosen(">"), None)


def fused(a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, rounded once where the processor can; a is a vector, the others may be numbers."""
    raise NotImplementedError


@lowered(fused, lambda a, b, c: a)
def _fused(context: Any, builder: Any, signature: Any, *values: Any) -> Any:
    # Left to LLVM as a choice, it would be made here in this way and there in the other.
    vector = signature.return_type
    cast = [
        context.cast(builder, *pair, vector) for pair in zip(values, signature.args, strict=True)
    ]
    return _called(builder, "fmuladd", cast[0].type, cast[0].type, cast)


def _called(builder: Any, name: str, kind: Any, result: Any, arguments: Sequence[Any]) -> Any:
    """Call the function of LLVM of this name for a kind of vectors."""
    name = f"{name}.v{kind.count}{kind.element.intrinsic_name}"
    return _called_as(builder, name, result, arguments)


def _called_as(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    of, name = ir.FunctionType(result, [value.type for value in arguments]), f"llvm.{name}"
    function = builder.module.globals.get(name) or ir.Function(builder.module, of, name)
    return builder.call(function, arguments)


def select(mask: Any, a: Any, b: Any) -> Any:
    """Return a where the mask is True, and b elsewhere; one of them may be a number."""
    raise NotImplementedError


@lowered(select, lambda mask, a, b: a if isinstance(a, VectorType) else b)
def _select(context: Any, builder: Any, signature: Any, mask: Any, *values: Any) -> Any:
    of, kinds = signature.return_type, signature.args[1:]
    cast = (
        context.cast(builder, value, kind, of) for value, kind in zip(values, kinds, strict=True)
    )
    return builder.select(mask, *cast)


def only(mask: Any, a: Any) -> Any:
    """Return a where the mask is True, and a NaN elsewhere, which has all bits set."""
    raise NotImplementedError


@lowered(only, lambda mask, a: a)
def _only(context: Any, builder: Any, signature: Any, mask: Any, a: Any) -> Any:
    # To set all bits takes less time than to select a number.
    kind = _integers(a)
    chosen = builder.select(mask, builder.bitcast(a, kind), _each(kind, -1))
    return builder.bitcast(chosen, a.type)


def _integers(a: Any) -> Any:
    """Return the kind of vectors of integers that have as many bits."""
    bits = 32 if isinstance(a.type.element, ir.FloatType) else 64
    return ir.VectorType(ir.IntType(bits), a.type.count)


def view(a: Any, dtype: Any) -> Any:
    """Return the same bits as numbers of another type."""
    raise NotImplementedError


@lowered(view, lambda a, dtype: VectorType(dtype.dtype, a.lanes))
def _view(context: Any, builder: Any, signature: Any, a: Any, dtype: Any) -> Any:
    return builder.bitcast(a, context.get_value_type(signature.return_type))


# Memory -----------------------------------------------------------------------------------------------


class MemoryType(types.Type):
    """Where an array of two axes lies, the last of which is contiguous, and the length of that."""

    def __init__(self, stored: Any) -> None:
        self.stored, self.is_narrow = stored, stored == types.uint16
        self.dtype = types.float32 if self.is_narrow else stored
        super().__init__(name=f"Memory({stored})")


@register_model(MemoryType)
class _MemoryModel(models.StructModel):
    def __init__(self, manager: Any, memory: MemoryType) -> None:
        members = [("data", types.voidptr), ("stride", types.intp), ("length", types.intp)]
        super().__init__(manager, memory, members)


make_attribute_wrapper(MemoryType, "length", "length")


def memory_of(a: Any) -> Any:
    """Return where an array lies, which must live on elsewhere: no reference is counted. None of None."""
    raise NotImplementedError


def _typed_memory(a: Any) -> Any:
    if a == types.none:
        return a
    return MemoryType(types.uint8 if a.dtype == types.boolean else a.dtype)


@lowered(memory_of, _typed_memory)
def _memory_of(context: Any, builder: Any, signature: Any, a: Any) -> Any:
    if signature.return_type == types.none:
        return context.get_dummy_value()
    array = context.make_array(signature.args[0])(context, builder, a)
    stride, length = (
        builder.extract_value(of, i) for of, i in ((array.strides, 0), (array.shape, 1))
    )
    return _memory(context, builder, signature, array.data, stride, length)


def _memory(context: Any, builder: Any, signature: Any, data: Any, stride: Any, length: Any) -> Any:
    made = cgutils.create_struct_proxy(signature.return_type)(context, builder)
    made.data = builder.bitcast(data, cgutils.voidptr_t)
    made.stride, made.length = stride, length
    return made._getvalue()


def _typed_room(number: Any) -> Any:
    return MemoryType(number)


def row_of(a: Any, row: Any) -> Any:
    """Return memory of which every row is that row of another. None of None."""
    raise NotImplementedError


@lowered(row_of, lambda a, row: a)
def _row_of(context: Any, builder: Any, signature: Any, a: Any, row: Any) -> Any:
    return _rows_apart(context, builder, signature, a, row, ir.Constant(row.type, 0))


def rows_apart(a: Any, row: Any, step: Any) -> Any:
    """Return memory of every so many rows of another, from one on. None of None."""
    raise NotImplementedError


@lowered(rows_apart, lambda a, row, step: a)
def _rows_apart(context: Any, builder: Any, signature: Any, a: Any, row: Any, step: Any) -> Any:
    if signature.return_type == types.none:
        return a
    made = cgutils.create_struct_proxy(signature.return_type)(context, builder, a)
    made.data = builder.gep(made.data, [builder.mul(row, made.stride)])
    made.stride = builder.mul(made.stride, step)
    return made._getvalue()


def part_of(a: Any, start: Any, stop: Any) -> Any:
    """Return memory of some columns; all of it where there is but one, and None of None."""
    raise NotImplementedError


@lowered(part_of, lambda a, start, stop: a)
def _part_of(context: Any, builder: Any, signature: Any, a: Any, start: Any, stop: Any) -> Any:
    if signature.return_type == types.none:
        return context.get_dummy_value()
    made = cgutils.create_struct_proxy(signature.return_type)(context, builder, a)
    kind = context.get_data_type(signature.return_type.stored)
    size = ir.Constant(start.type, context.get_abi_sizeof(kind))
    is_one = builder.icmp_signed("==", made.length, ir.Constant(start.type, 1))
    first = builder.gep(made.data, [builder.mul(start, size)])
    made.data = builder.select(is_one, made.data, first)
    made.length = builder.select(is_one, made.length, builder.sub(stop, start))
    return made._getvalue()


def block_of(a: Any, row: Any, start: Any, length: Any) -> Any:
    """Return memory that begins at an entry of another, with rows of that length; None of None."""
    raise NotImplementedError


@lowered(block_of, lambda a, row, start, length: a)
def _block_of(context: Any, builder: Any, signature: Any, *values: Any) -> Any:
    memory = signature.return_type
    if memory == types.none:
        return context.get_dummy_value()
    made = cgutils.create_struct_proxy(memory)(context, builder, values[0])
    place, _ = _place(context, builder, memory, 1, *values[:3])
    made.data, made.length = builder.bitcast(place, cgutils.voidptr_t), values[3]
    return made._getvalue()


def either(is_first: Any, a: Any, b: Any) -> Any:
    """Return one of two memories; the first if they hold numbers of two kinds."""
    raise NotImplementedError


@lowered(either, lambda is_first, a, b: a)
def _either(context: Any, builder: Any, signature: Any, is_first: Any, a: Any, b: Any) -> Any:
    _, first, second = signature.args
    return builder.select(is_first, a, b) if first == second else a


def room_of(rows: int, entries: int) -> Any:
    """Return a function for compiled code: room on its stack for rows of numbers of the kind of one."""

    def room(number: Any) -> Any:
        raise NotImplementedError

    @lowered(room, _typed_room)
    def emit(context: Any, builder: Any, signature: Any, number: Any) -> Any:
        length = ir.Constant(context.get_value_type(types.intp), entries)
        size = ir.Constant(length.type, rows * entries)
        data = cgutils.alloca_once(builder, number.type, size)
        stride = ir.Constant(length.type, entries * context.get_abi_sizeof(number.type))
        return _memory(context, builder, signature, data, stride, length)

    return room


def load(a: Any, row: Any, start: Any, like: Any) -> Any:
    """Return the numbers of a row from a start on, as many as in another vector, and in its precision."""
    raise NotImplementedError


@lowered(load, lambda a, row, start, like: like)
def _load(context: Any, builder: Any, signature: Any, *values: Any) -> Any:
    memory, *_, like = signature.args
    place, size = _place(context, builder, memory, like.lanes, *values[:3])
    numbers = _widened(builder, memory, builder.load(place, align=size))
    if memory.dtype in types.real_domain and memory.dtype != like.dtype:
        return builder.fpext(numbers, context.get_value_type(like))
    return numbers


def _widened(builder: Any, memory: MemoryType, loaded: Any) -> Any:
    """Return the numbers that memory holds in this way."""
    if not memory.is_narrow:
        return loaded
    numbers, bits = (ir.VectorType(kind, loaded.type.count) for kind in (ir.FloatType(), INDEX))
    return builder.bitcast(builder.shl(builder.zext(loaded, bits), _each(bits, 16)), numbers)


def _narrowed(builder: Any, memory: MemoryType, numbers: Any) -> Any:
    """Return how memory holds numbers: in bfloat16 as the nearest, of two the even one; NaN as such."""
    if not memory.is_narrow:
        return numbers
    kind = _integers(numbers)
    half, last, digits, quiet = (_each(kind, i) for i in (0x7FFF, 1, 16, 0x40))
    bits = builder.bitcast(numbers, kind)
    upper = builder.lshr(bits, digits)
    more = builder.add(half, builder.and_(upper, last))
    rounded = builder.lshr(builder.add(bits, more), digits)
    is_nan = builder.fcmp_unordered("uno", numbers, numbers)
    found = builder.select(is_nan, builder.or_(upper, quiet), rounded)
    return builder.trunc(found, ir.VectorType(ir.IntType(16), kind.count))


def _each(kind: Any, number: int) -> Any:
    return ir.Constant(kind, [number] * kind.count)


def _place(
    context: Any, builder: Any, memory: MemoryType, lanes: int, a: Any, row: Any, start: Any
) -> tuple[Any, int]:
    """Return where so many entries are, and the bytes of one."""
    kind = context.get_data_type(memory.stored)
    made = cgutils.create_struct_proxy(memory)(context, builder, a)
    first = builder.gep(made.data, [builder.mul(row, made.stride)])
    entries = builder.gep(builder.bitcast(first, kind.as_pointer()), [start])
    vectors = ir.VectorType(kind, lanes).as_pointer()
    return builder.bitcast(entries, vectors), context.get_abi_sizeof(kind)


def load_first(a: Any, row: Any, start: Any, places: Any) -> Any:
    """Return what `load` does where a mask is True, and 0 elsewhere, where nothing is read."""
    raise NotImplementedError


@lowered(load_first, lambda a, row, start, places: VectorType(a.dtype, places.lanes))
def _load_first(context: Any, builder: Any, signature: Any, *values: Any) -> Any:
    memory, *_, places = signature.args
    place, size = _place(context, builder, memory, places.lanes, *values[:3])
    return _widened(builder, memory, _loaded_first(builder, place, size, values[3]))


def _loaded_first(builder: Any, place: Any, size: int, mask: Any) -> Any:
    kind = place.type.pointee
    arguments = place, ir.Constant(INDEX, size), mask, ir.Constant(kind, None)
    # LLVM adds what the name lacks, the kind of the address, as versions of LLVM differ in that.
    return _called(builder, "masked.load", kind, kind, arguments)


def kept(where: Any, row: Any, start: Any, like: Any) -> Any:
    """Return the mask that stands in a row from a start on; None where there are no masks."""
    raise NotImplementedError


@lowered(kept, lambda where, row, start, like: where if where == types.none else _masks(like))
def _kept(context: Any, builder: Any, signature: Any, *values: Any) -> Any:
    if signature.return_type == types.none:
        return context.get_dummy_value()
    return _nonzero(builder, _load(context, builder, signature, *values))


def kept_first(where: Any, row: Any, start: Any, places: Any) -> Any:
    """Return the mask that stands there and is True; `places` where there are no masks."""
    raise NotImplementedError


@lowered(kept_first, lambda where, row, start, places: places)
def _kept_first(context: Any, builder: Any, signature: Any, *values: Any) -> Any:
    if signature.args[0] == types.none:
        return values[3]
    return _nonzero(builder, _load_first(context, builder, signature, *values))


def kept_some(where: Any, row: Any, start: Any, places: Any, like: Any) -> Any:
    """Return what `kept_first` does, or `kept` if there are no places; None where there are no masks."""
    raise NotImplementedError


@lowered(
    kept_some,
    lambda where, row, start, places, like: where if where == types.none else _masks(like),
)
def _kept_some(context: Any, builder: Any, signature: Any, *values: Any) -> Any:
    memory, *_, places, like = signature.args
    if memory == types.none:
        return context.get_dummy_value()
    place, size = _place(context, builder, memory, like.lanes, *values[:3])
    if places == types.none:
        return _nonzero(builder, builder.load(place, align=size))
    return _nonzero(builder, _loaded_first(builder, place, size, values[3]))


def _nonzero(builder: Any, loaded: Any) -> Any:
    return builder.icmp_unsigned("!=", loaded, ir.Constant(loaded.type, None))


def prefetch(a: Any, row: Any, start: Any) -> None:
    """Have a line of cache fetched, which need not be there."""
    raise NotImplementedError


@lowered(prefetch, lambda a, row, start: types.none)
def _prefetch(context: Any, builder: Any, signature: Any, *values: Any) -> Any:
    place, _ = _place(context, builder, signature.args[0], 1, *values)
    place = builder.bitcast(place, cgutils.voidptr_t)
    arguments = [place, *(ir.Constant(INDEX, i) for i in (0, 3, 1))]
    _called_as(builder, "prefetch", ir.VoidType(), arguments)
    return context.get_dummy_value()


def store(a: Any, row: Any, start: Any, numbers: Any) -> None:
    """Write numbers to a row of an array from a start on, if there is one, in its precision."""
    raise NotImplementedError


@lowered(store, lambda a, row, start, numbers: types.none)
def _store(context: Any, builder: Any, signature: Any, *values: Any) -> Any:
    memory, *_, vector = signature.args
    if memory == types.none:
        return context.get_dummy_value()
    place, size = _place(context, builder, memory, vector.lanes, *values[:3])
    numbers = values[3]
    if memory.dtype in types.real_domain and memory.dtype != vector.dtype:
        kind = context.get_value_type(VectorType(memory.dtype, vector.lanes))
        numbers = builder.fptrunc(numbers, kind)
    builder.store(_narrowed(builder, memory, numbers), place, align=size)
    return context.get_dummy_value()


def store_first(a: Any, row: Any, start: Any, mask: Any, numbers: Any) -> None:
    """Do what `store` does where the mask is True."""
    raise NotImplementedError


@lowered(store_first, lambda a, row, start, mask, numbers: types.none)
def _store_first(context: Any, builder: Any, signature: Any, *values: Any) -> Any:
    memory, *_, vector = signature.args
    if memory == types.none:
        return context.get_dummy_value()
    place, size = _place(context, builder, memory, vector.lanes, *values[:3])
    *_, mask, numbers = values
    numbers = _narrowed(builder, memory, numbers)
    arguments = numbers, place, ir.Constant(INDEX, size), mask
    _called(builder, "masked.store", place.type.pointee, ir.VoidType(), arguments)
    return context.get_dummy_value()


def _typed_entry(a: Any, place: Any) -> Any:
    return a.dtype if isinstance(a, MemoryType) else None


@lowered(operator.getitem, _typed_entry, MemoryType)
def _entry(context: Any, builder: Any, signature: Any, a: Any, place: Any) -> Any:
    row, i = cgutils.unpack_tuple(builder, place)
    memory, _ = signature.args
    entry, _ = _place(context, builder, memory, 1, a, row, i)
    return _first(builder, _widened(builder, memory, builder.load(entry)))


def _typed_set_entry(a: Any, place: Any, number: Any) -> Any:
    return types.none if isinstance(a, MemoryType) else None


@lowered(operator.setitem, _typed_set_entry, MemoryType)
def _set_entry(context: Any, builder: Any, signature: Any, a: Any, place: Any, number: Any) -> Any:
    memory, _, kind = signature.args
    row, i = cgutils.unpack_tuple(builder, place)
    entry, _ = _place(context, builder, memory, 1, a, row, i)
    number = context.cast(builder, number, kind, memory.dtype)
    builder.store(_narrowed(builder, memory, _repeated(builder, number, 1)), entry)
    return context.get_dummy_value()


# Counters that threads share --------------------------------------------------------------------------


def add_to(counters: Any, place: Any, number: Any) -> int:
    """Add to an entry of an array of 64-bit integers, and return what it was, with no other thread between."""
    raise NotImplementedError


@lowered(add_to, lambda counters, place, number: types.int64)
def _add_to(context: Any, builder: Any, signature: Any, a: Any, place: Any, number: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, a)
    entry = builder.gep(array.data, [place])
    number = context.cast(builder, number, signature.args[2], types.int64)
    return builder.atomic_rmw("add", entry, number, "acq_rel")


# To numbers ---------------------------------------------------------------------------------------


def first_of(a: Any) -> Any:
    """Return the first number of a vector."""
    raise NotImplementedError


@lowered(first_of, lambda a: a.dtype)
def _first_of(context: Any, builder: Any, signature: Any, a: Any) -> Any:
    return _first(builder, a)


def _first(builder: Any, a: Any) -> Any:
    return builder.extract_element(a, ir.Constant(INDEX, 0))


def any_of(mask: Any) -> Any:
    """Tell whether one place is True."""
    raise NotImplementedError


@lowered(any_of, lambda mask: types.boolean)
def _any_of(context: Any, builder: Any, signature: Any, mask: Any) -> Any:
    bits = builder.bitcast(mask, ir.IntType(mask.type.count))
    return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))


def folded(a: Any) -> Any:
    """Return the sum: half of the numbers are added to the others, until one is left."""
    raise NotImplementedError


def highest_of(a: Any) -> Any:
    """Return the largest number."""
    raise NotImplementedError


def without_highest(a: Any, rest: Any) -> Any:
    """Return the sum of `rest` and of a but for its largest number, in the order of `folded`; and that."""
    raise NotImplementedError


def _folding(name: Any, made: Two) -> None:
    @lowered(name, lambda a: a.dtype)
    def fold(context: Any, builder: Any, signature: Any, a: Any) -> Any:
        while a.type.count > 1:
            a = made(builder, *_halves(builder, a))
        return _first(builder, a)


def _halves(builder: Any, a: Any) -> list[Any]:
    half = a.type.count // 2
    return [builder.shuffle_vector(a, a, _indices(range(i, i + half))) for i in (0, half)]


_folding(folded, _plain("fadd"))
_folding(highest_of, _chosen(">"))


@lowered(without_highest, lambda a, rest: types.UniTuple(a.dtype, 2))
def _without_highest(context: Any, builder: Any, signature: Any, a: Any, rest: Any) -> Any:
    while a.type.count > 1:
        a, b = _halves(builder, a)
        rest = builder.fadd(*_halves(builder, rest))
        # A NaN is one of the two, as in `in_order`.
        rest, a = builder.fadd(rest, _chosen("<")(builder, a, b)), _chosen(">")(builder, b, a)
    found = _first(builder, rest), _first(builder, a)
    return context.make_tuple(builder, signature.return_type, found)
