"""Searches and comparisons of thirty-two bytes at a time.

LLVM compiles these functions to the CPU's widest comparisons. They take a third of the time that eight bytes at a
time would take.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import kernel
from .shared import trailing_zeros

WIDTH = 32
"""How many bytes are compared at once."""

_BYTE, _INDEX, _MASK = ir.IntType(8), ir.IntType(32), ir.IntType(WIDTH)
VECTOR = ir.VectorType(_BYTE, WIDTH)


def loaded(builder, address):
    """Load 32 bytes from any address, in the code of an intrinsic."""
    return builder.load(builder.inttoptr(address, VECTOR.as_pointer()), align=1)


def _repeated(builder, byte):
    undefined = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, byte, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INDEX, WIDTH), [0] * WIDTH))


def mask_of(builder, bits):
    """Convert the 32 results of a comparison to a mask of 64 bits, of which the upper half is 0."""
    return builder.zext(builder.bitcast(bits, _MASK), ir.IntType(64))


@intrinsic
def bytes_equal(typingctx, address, byte):
    """Return a mask of 32 bytes: bit i is set if the byte at `address` + i equals `byte`."""

    def codegen(context, builder, signature, args):
        wanted = _repeated(builder, args[1])
        return mask_of(builder, builder.icmp_unsigned("==", loaded(builder, args[0]), wanted))

    return types.int64(types.intp, types.uint8), codegen


@intrinsic
def bytes_outside(typingctx, address, least, most):
    """Return a mask of 32 bytes: bit i is set if the byte at `address` + i is below `least` or above `most`."""

    def codegen(context, builder, signature, args):
        low, high = (_repeated(builder, byte) for byte in args[1:])
        above = builder.sub(loaded(builder, args[0]), low)
        return mask_of(builder, builder.icmp_unsigned(">", above, builder.sub(high, low)))

    return types.int64(types.intp, types.uint8, types.uint8), codegen


@intrinsic
def _bytes_unequal(typingctx, left, right):
    """Return a mask of 32 bytes: bit i is set if the bytes at `left` + i and `right` + i differ."""

    def codegen(context, builder, signature, args):
        left, right = (loaded(builder, address) for address in args)
        return mask_of(builder, builder.icmp_unsigned("!=", left, right))

    return types.int64(types.intp, types.intp), codegen


@kernel(inlined=True)
def find_byte(data, at, end, byte):
    """Return the index of the first `byte` in data[at:end], or `end` if there is none.

    Bytes after `end` may be read, but none after the end of the array.
    """
    base = np.int64(data.ctypes.data)
    while at < end and at + WIDTH <= data.shape[0]:
        found = bytes_equal(base + at, byte)
        if found != 0:
            return min(at + trailing_zeros(found), end)
        at += WIDTH
    while at < end and data[at] != byte:
        at += 1
    return min(at, end)


@kernel(inlined=True)
def alike(left, left_at, right, right_at, length):
    """Return how many bytes two ranges have in common before the first that differs, at most `length`."""
    left_base = np.int64(left.ctypes.data) + left_at
    right_base = np.int64(right.ctypes.data) + right_at
    room = min(left.shape[0] - left_at, right.shape[0] - right_at)
    done = np.int64(0)
    while done < length and done + WIDTH <= room:
        different = _bytes_unequal(left_base + done, right_base + done)
        if different != 0:
            return min(done + trailing_zeros(different), length)
        done += WIDTH
    while done < length and left[left_at + done] == right[right_at + done]:
        done += 1
    return min(done, length)


@kernel("int64(uint8[::1], int64, int64, uint8)")
def find_one(data, at, end, byte):
    """Call `find_byte` from Python."""
    return find_byte(data, at, end, byte)


@kernel("int64(uint8[::1], int64, uint8[::1], int64, int64)")
def count_alike(left, left_at, right, right_at, length):
    """Call `alike` from Python."""
    return alike(left, left_at, right, right_at, length)
