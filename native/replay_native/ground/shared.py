"""Words that a kernel shares with other threads while it runs without the interpreter lock.

LLVM may move a plain load out of a loop, which would then never see another thread's store. So every word that two
threads access is read with `load_acquire` and written with `store_release`. `peek_*` and `poke_*` read and write at
raw addresses, for C structs.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import kernel

_WORD_BYTES = 8


def _element_pointer(context, builder, array_type, array, index):
    view = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, view, [index], wraparound=False)


@intrinsic
def load_acquire(typingctx, array, index):
    """Load the int64 at `array[index]`. Everything that its writer stored before is visible afterwards."""
    if not isinstance(array, types.Array) or array.dtype != types.int64:
        return None

    def codegen(context, builder, signature, args):
        pointer = _element_pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load_atomic(pointer, ordering="acquire", align=_WORD_BYTES)

    return types.int64(array, types.intp), codegen


@intrinsic
def store_release(typingctx, array, index, value):
    """Store an int64 at `array[index]`, after everything that this thread stored before."""
    if not isinstance(array, types.Array) or array.dtype != types.int64:
        return None

    def codegen(context, builder, signature, args):
        pointer = _element_pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store_atomic(args[2], pointer, ordering="release", align=_WORD_BYTES)
        return context.get_dummy_value()

    return types.none(array, types.intp, types.int64), codegen


def _peek(bits: int, returned: Any) -> Any:
    @intrinsic
    def peek(typingctx, address):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], ir.IntType(bits).as_pointer())
            return builder.load(pointer, align=1)

        return returned(types.uintp), codegen

    return peek


def _poke(bits: int, stored: Any) -> Any:
    @intrinsic
    def poke(typingctx, address, value):
        def codegen(context, builder, signature, args):
            pointer = builder.inttoptr(args[0], ir.IntType(bits).as_pointer())
            builder.store(args[1], pointer, align=1)
            return context.get_dummy_value()

        return types.none(types.uintp, stored), codegen

    return poke


def clears(fields: list[str]) -> Any:
    """Return an intrinsic that sets `fields` of a record to zero.

    The fields must be adjacent, because they are cleared as one range.
    """

    @intrinsic
    def clear(typingctx, record):
        if not isinstance(record, types.Record):
            return None
        begins = [record.offset(name) for name in fields]
        sizes = [record.typeof(name).bitwidth // 8 for name in fields]
        ends = [begin + size for begin, size in zip(begins, sizes, strict=True)]
        if begins[1:] != ends[:-1]:
            raise TypeError(f"{', '.join(fields)} are not adjacent")

        def codegen(context, builder, signature, args):
            base = builder.bitcast(args[0], ir.IntType(8).as_pointer())
            pointer = builder.gep(base, [ir.Constant(ir.IntType(64), begins[0])])
            cgutils.memset(builder, pointer, ir.Constant(ir.IntType(64), ends[-1] - begins[0]), 0)
            return context.get_dummy_value()

        return types.none(record), codegen

    return clear


@intrinsic
def trailing_zeros(typingctx, word):
    """Return how many of a word's lowest bits are 0; 64 if all are."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), codegen


peek_u8 = _peek(8, types.uint8)
peek_u32 = _peek(32, types.uint32)
peek_i32 = _peek(32, types.int32)
peek_i64 = _peek(64, types.int64)
poke_u8 = _poke(8, types.uint8)
poke_u32 = _poke(32, types.uint32)
poke_i64 = _poke(64, types.int64)


@kernel("int64(int64[::1], int64)", brief=True)
def read_word(words, index):
    """Read a shared word from Python."""
    return load_acquire(words, index)


@kernel("void(int64[::1], int64, int64)", brief=True)
def write_word(words, index, value):
    """Write a shared word from Python, so that other threads see everything that was stored before."""
    store_release(words, index, value)
