"""Numba's ground: the decorator, atomics, libc, memory, clocks, random bits, SIMD, hashes. It knows no domain."""
