"""Checksums of the blocks of a file, each by XXH64."""

from __future__ import annotations

from replay_native.ground.jit import kernel
from replay_native.ground.xxh64 import begin, digest, update


@kernel("void(uint8[::1], int64, uint64[::1], uint8[::1], uint64[::1])")
def hash_blocks(data, block_bytes, state, tail, hashes):
    """Write the checksum of each block of `data` to `hashes`. The last block may be shorter.

    `state` and `tail` are scratch memory (`ground/xxh64`).
    """
    for block in range(hashes.shape[0]):
        first = block * block_bytes
        begin(state)
        update(state, tail, data[first : min(first + block_bytes, data.shape[0])])
        hashes[block] = digest(state, tail)


@kernel("void(uint8[::1], int64[::1], int64[::1], uint64[::1], uint8[::1], uint64[::1])")
def hash_pieces(data, begins, ends, state, tail, hashes):
    """Write the checksum of each data[begins[i]:ends[i]] to `hashes`.

    `state` and `tail` are scratch memory (`ground/xxh64`).
    """
    for index in range(hashes.shape[0]):
        begin(state)
        update(state, tail, data[begins[index] : ends[index]])
        hashes[index] = digest(state, tail)
