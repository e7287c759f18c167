"""Checksums of the blocks of a file, each by XXH64."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.xxh64 import LENGTH, begin, digest, update


@kernel("int64(uint8[::1], int64, uint64[::1], uint8[::1], uint64[::1])")
def hash_stream(data, block_bytes, state, tail, hashes):
    """Continue a stream of blocks with `data`. Write the checksum of each block that is complete, and return how many.

    `state` and `tail` hold what was added of an incomplete block (`ground/xxh64`); `begin` resets them.
    """
    at, done = np.int64(0), np.int64(0)
    while at < data.shape[0]:
        end = min(at + block_bytes - np.int64(state[LENGTH]), data.shape[0])
        update(state, tail, data[at:end])
        at = end
        if np.int64(state[LENGTH]) == block_bytes:
            hashes[done] = digest(state, tail)
            done += 1
            begin(state)
    return done


@kernel("void(uint8[::1], int64, uint64[::1], uint8[::1], uint64[::1])")
def hash_blocks(data, block_bytes, state, tail, hashes):
    """Write the checksum of each block of `data` to `hashes`. The last block may be shorter.

    `state` and `tail` are scratch memory (`ground/xxh64`).
    """
    begin(state)
    done = hash_stream(data, block_bytes, state, tail, hashes)
    if done < hashes.shape[0]:
        hashes[done] = digest(state, tail)


@kernel("void(uint8[::1], int64[::1], int64[::1], uint64[::1], uint8[::1], uint64[::1])")
def hash_pieces(data, begins, ends, state, tail, hashes):
    """Write the checksum of each data[begins[i]:ends[i]] to `hashes`.

    `state` and `tail` are scratch memory (`ground/xxh64`).
    """
    for index in range(hashes.shape[0]):
        begin(state)
        update(state, tail, data[begins[index] : ends[index]])
        hashes[index] = digest(state, tail)
