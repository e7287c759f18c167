"""Searches that look up the nibbles (halves) of thirty-two bytes at a time in tables of sixteen entries.

A set of bytes has two rows, one for low nibbles and one for high ones. A byte is in the set if its two entries have a
bit in common. Each bit may stand for another set of bytes.

`prefix_places` looks for any of several words by their first three bytes, as Hyperscan's Teddy does (Wang et al., NSDI
2019). Each word is in one of sixteen buckets, and each bucket has a bit in the rows of each of the three positions. A
place where all three positions allow a bucket may be the beginning of one of its words. Often it is not, so that the
caller must compare the bytes.

CPUs without AVX2 cannot run these searches, because LLVM has no portable form of the shuffle that looks up a table.
"""

from __future__ import annotations

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import cpu
from .simd import VECTOR, WIDTH, loaded, mask_of

HAS_NIBBLES = "avx2" in cpu.features()
"""Whether kernels are compiled for a CPU that these searches can use."""

PREFIX_BYTES, BUCKETS = 3, 16
PREFIX_READ_BYTES = WIDTH + PREFIX_BYTES - 1
"""How many bytes `prefix_places` reads."""

SET_ROWS = 2
ROWS_OF_EIGHT = SET_ROWS * PREFIX_BYTES
PREFIX_ROWS = ROWS_OF_EIGHT * BUCKETS // 8
"""Rows of `prefix_places`: those of the three positions for buckets 0 to 7, then those for buckets 8 to 15.

Each row has its sixteen entries twice, because the shuffle looks up sixteen bytes in each half of a vector.
"""


def byte_set(members):
    """Return uint8[SET_ROWS, 32] for the set of the bytes `members`.

    Each high nibble has a bit of its own. Raises ValueError if the members have more than eight high nibbles.
    """
    highs = sorted({byte >> 4 for byte in members})
    if len(highs) > 8:
        raise ValueError(f"{len(highs)} high nibbles, and a row has 8 bits")
    rows = np.zeros((SET_ROWS, 16), np.uint8)
    for bit, high in enumerate(highs):
        rows[0, [byte & 15 for byte in members if byte >> 4 == high]] |= np.uint8(1 << bit)
        rows[1, high] = 1 << bit
    return np.tile(rows, 2)


def _shuffled(builder, rows, number, nibbles):
    """Look up 32 nibbles in a row."""
    address = builder.add(rows, ir.Constant(rows.type, WIDTH * number))
    signature = ir.FunctionType(VECTOR, [VECTOR, VECTOR])
    shuffle = cgutils.get_or_insert_function(builder.module, signature, "llvm.x86.avx2.pshuf.b")
    return builder.call(shuffle, [loaded(builder, address), nibbles])


def _common(builder, rows, number, nibbles):
    """Return for each of 32 bytes the bits that its entries in rows `number` and `number` + 1 have in common."""
    low, high = (_shuffled(builder, rows, number + half, nibbles[half]) for half in (0, 1))
    return builder.and_(low, high)


def _nibbles(builder, address):
    """Return the low and the high nibbles of 32 bytes."""
    data = loaded(builder, address)
    mask, shift = (_constant(value) for value in (0x0F, 4))
    return builder.and_(data, mask), builder.lshr(data, shift)


def _constant(value):
    return ir.Constant(VECTOR, [value] * WIDTH)


@intrinsic
def bytes_in_set(typingctx, address, rows):
    """Return a mask of 32 bytes: bit i is set if the byte at `address` + i is in a set.

    `rows` is the address of uint8[SET_ROWS, 32].
    """

    def codegen(context, builder, signature, args):
        address, rows = args
        found = _common(builder, rows, 0, _nibbles(builder, address))
        return mask_of(builder, builder.icmp_unsigned("!=", found, _constant(0)))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def prefix_places(typingctx, address, rows):
    """Return a mask of 32 bytes: bit i is set if a word may begin at `address` + i.

    `rows` is the address of uint8[PREFIX_ROWS, 32]. PREFIX_READ_BYTES bytes are read.
    """

    def codegen(context, builder, signature, args):
        address, rows = args
        bytes_at = [
            _nibbles(builder, builder.add(address, ir.Constant(address.type, place)))
            for place in range(PREFIX_BYTES)
        ]
        found = _constant(0)
        for number in range(0, PREFIX_ROWS, ROWS_OF_EIGHT):
            allowed = [
                _common(builder, rows, number + SET_ROWS * place, nibbles)
                for place, nibbles in enumerate(bytes_at)
            ]
            found = builder.or_(found, functools.reduce(builder.and_, allowed))
        return mask_of(builder, builder.icmp_unsigned("!=", found, _constant(0)))

    return types.int64(types.int64, types.int64), codegen
