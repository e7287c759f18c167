"""Numba helpers that know nothing of replay's domain: the decorator, atomics, libc, memory, clocks, SIMD, hashes."""
