"""CRC-32C (Castagnoli, RFC 3720 B.4), computed on three streams at once, with the CPU's instruction if it has one.

A CRC is the remainder of a polynomial over GF(2). The CRC of two pieces is the CRC of the first, times x^(8 *
length of the second), plus the CRC of the second. So several streams can be computed side by side and joined, and a
piece need not be read again when the bytes before it change (Mark Adler, crc32c.c and zlib's crc32_combine).
"""

from __future__ import annotations

import platform

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from replay_native.ground import cpu
from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i64, peek_u8

POLYNOMIAL = 0x82F63B78
"""The polynomial with its bits reversed: the coefficient of x^0 is the highest bit."""

_LONG, _SHORT = 8_192, 256
"""Bytes of one of three streams. There are two sizes: one for long inputs, and one for the rest."""


def _instruction() -> str:
    """Return the name of LLVM's intrinsic for 8 bytes at once, or an empty text if the compiled-for CPU has none."""
    features = cpu.features()
    machine = platform.machine()
    if machine in ("x86_64", "AMD64") and "sse4.2" in features:
        return "llvm.x86.sse42.crc32.64.64"
    if machine in ("aarch64", "arm64") and "crc" in features:
        return "llvm.aarch64.crc32cx"
    return ""


INSTRUCTION = _instruction()


def _multiplied(a: int, b: int) -> int:
    """Return a * b modulo the polynomial."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ (POLYNOMIAL if b & 1 else 0)
    return product


def _powers() -> np.ndarray:
    """Return x^(2^k) for k from 0 to 31, uint64[32], which are enough for pieces shorter than 2^29 bytes."""
    powers = [1 << 30]
    while len(powers) < 32:
        powers.append(_multiplied(powers[-1], powers[-1]))
    return np.array(powers, np.uint64)


_POWERS = _powers()


def _power_of_bytes(length: int) -> int:
    product, k = 1 << 31, 3
    while length:
        if length & 1:
            product = _multiplied(int(_POWERS[k & 31]), product)
        length >>= 1
        k += 1
    return product


def _shift_table(length: int) -> np.ndarray:
    """Return what each byte of a CRC becomes when `length` bytes follow, uint64[4, 256]."""
    factor = _power_of_bytes(length)
    table = np.zeros((4, 256), np.uint64)
    for place in range(4):
        for bit in range(8):
            table[place, 1 << bit] = _multiplied(1 << (8 * place + bit), factor)
        for byte in range(1, 256):
            lowest = byte & -byte
            if byte != lowest:
                table[place, byte] = table[place, lowest] ^ table[place, byte ^ lowest]
    return table


def _byte_tables() -> np.ndarray:
    """Return the tables for slicing by 8: the CRC of a byte that 0 to 7 zero bytes follow, uint64[8, 256]."""
    tables = np.zeros((8, 256), np.uint64)
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (POLYNOMIAL if crc & 1 else 0)
        tables[0, byte] = crc
    for place in range(1, 8):
        before = tables[place - 1]
        tables[place] = (before >> np.uint64(8)) ^ tables[0][before & np.uint64(255)]
    return tables


_LONG_SHIFT, _SHORT_SHIFT, _BYTES = _shift_table(_LONG), _shift_table(_SHORT), _byte_tables()


@kernel(inlined=True)
def _word_by_table(crc, word):
    """Return the CRC after 8 more bytes, for CPUs without the instruction."""
    word ^= crc
    crc = np.uint64(0)
    for place in range(8):
        crc ^= _BYTES[7 - place, (word >> np.uint64(8 * place)) & np.uint64(255)]
    return crc


@intrinsic
def _word_by_instruction(typingctx, crc, word):
    """Return the CRC after 8 more bytes, computed with the CPU's instruction."""

    def codegen(context, builder, signature, args):
        wide = ir.IntType(64)
        state = wide if "x86" in INSTRUCTION else ir.IntType(32)
        function = builder.module.declare_intrinsic(INSTRUCTION, (), ir.FunctionType(state, [state, wide]))
        crc = args[0] if state is wide else builder.trunc(args[0], state)
        result = builder.call(function, [crc, args[1]])
        return result if state is wide else builder.zext(result, wide)

    return types.uint64(types.uint64, types.uint64), codegen


_word = _word_by_instruction if INSTRUCTION else _word_by_table


@kernel(inlined=True)
def _shifted(table, crc):
    return (
        table[0, crc & np.uint64(255)]
        ^ table[1, (crc >> np.uint64(8)) & np.uint64(255)]
        ^ table[2, (crc >> np.uint64(16)) & np.uint64(255)]
        ^ table[3, (crc >> np.uint64(24)) & np.uint64(255)]
    )


@kernel(inlined=True)
def _three(crc, address, stream_bytes, table):
    """Return the CRC after three consecutive pieces of `stream_bytes` each, which are computed side by side.

    The instruction has a latency of 3 cycles, and one can start in every cycle.
    """
    second, third = np.uint64(0), np.uint64(0)
    for at in range(address, address + stream_bytes, 8):
        crc = _word(crc, np.uint64(peek_i64(np.uint64(at))))
        second = _word(second, np.uint64(peek_i64(np.uint64(at + stream_bytes))))
        third = _word(third, np.uint64(peek_i64(np.uint64(at + 2 * stream_bytes))))
    return _shifted(table, _shifted(table, crc) ^ second) ^ third


@kernel("uint64(int64, int64)")
def crc32c_at(address, length):
    """Return the CRC-32C of `length` bytes at an address."""
    crc, end = np.uint64(0xFFFFFFFF), address + length
    while end - address >= 3 * _LONG:
        crc = _three(crc, address, _LONG, _LONG_SHIFT)
        address += 3 * _LONG
    while end - address >= 3 * _SHORT:
        crc = _three(crc, address, _SHORT, _SHORT_SHIFT)
        address += 3 * _SHORT
    while end - address >= 8:
        crc = _word(crc, np.uint64(peek_i64(np.uint64(address))))
        address += 8
    while address < end:
        crc = (crc >> np.uint64(8)) ^ _BYTES[
            0, (crc ^ np.uint64(peek_u8(np.uint64(address)))) & np.uint64(255)
        ]
        address += 1
    return crc ^ np.uint64(0xFFFFFFFF)


@kernel("uint64(uint8[::1])")
def crc32c(data):
    """Return the CRC-32C of an array."""
    return crc32c_at(np.int64(data.ctypes.data), np.int64(data.shape[0]))


@kernel("uint64(uint8[::1])")
def crc32c_by_table(data):
    """Return the CRC-32C of an array, computed without the instruction."""
    crc, at = np.uint64(0xFFFFFFFF), np.int64(0)
    base = np.int64(data.ctypes.data)
    while data.shape[0] - at >= 8:
        crc = _word_by_table(crc, np.uint64(peek_i64(np.uint64(base + at))))
        at += 8
    while at < data.shape[0]:
        crc = (crc >> np.uint64(8)) ^ _BYTES[0, (crc ^ np.uint64(data[at])) & np.uint64(255)]
        at += 1
    return crc ^ np.uint64(0xFFFFFFFF)


@kernel()
def _product(a, b):
    """Return a * b modulo the polynomial."""
    product = np.uint64(0)
    for bit in range(31, -1, -1):
        if (a >> np.uint64(bit)) & np.uint64(1):
            product ^= b
        b = (b >> np.uint64(1)) ^ (np.uint64(POLYNOMIAL) if b & np.uint64(1) else np.uint64(0))
    return product


@kernel("uint64(uint64, uint64, int64)")
def joined(first, second, second_bytes):
    """Return the CRC of two consecutive pieces, from the CRCs of both and the length of the second.

    The second piece must be shorter than 2^29 bytes (see `_powers`).
    """
    k, length = 3, second_bytes
    while length:
        if length & 1:
            first = _product(_POWERS[k & 31], first)
        length >>= 1
        k += 1
    return first ^ second
