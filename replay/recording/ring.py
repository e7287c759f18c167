"""The ring of raw requests between the native receiver and the writer, in memory that both processes share.

It is not in a file, because requests contain secrets. It outlives the receiver, so that answered requests are recorded
even if the receiver is killed.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct

import numpy as np

from replay_native.ground import shared
from replay_native.ground.jit import warm
from replay_native.mirror import memory as layout
from replay_native.mirror.memory import RingWords

RING_BYTES = 128 << 20
_WORDS_BYTES = mmap.PAGESIZE


class MirrorRing:
    """A ring of raw requests in shared memory. `file` is a descriptor that a child process may inherit."""

    def __init__(self, file: int) -> None:
        warm(["ground.shared"])
        self.file = file
        # All pages are mapped in advance. Mapping a page when a request needs it takes longer than copying the
        # request.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._memory = mmap.mmap(file, os.fstat(file).st_size, flags)
        words = np.frombuffer(self._memory, np.int64, RingWords.WORDS)
        data = np.frombuffer(self._memory, np.uint8, offset=_WORDS_BYTES)
        self.arrays = layout.Ring(words, data)

    @classmethod
    def create(cls, size: int = RING_BYTES) -> MirrorRing:
        """Create a ring of `size` bytes, which must be a power of two."""
        file = os.memfd_create("replay-mirror", os.MFD_CLOEXEC)
        os.ftruncate(file, _WORDS_BYTES + size)
        return cls(file)

    def word(self, index: int) -> int:
        """Return one word of the ring (see RingWords)."""
        return int(shared.read_word(self.arrays.words, index))

    @property
    def waiting(self) -> int:
        """Return the number of requests that wait in the ring."""
        return self.word(RingWords.PUT_RECORDS) - self.word(RingWords.TAKEN_RECORDS)

    @property
    def waiting_bytes(self) -> int:
        """Return how much of the ring is used by requests that wait, in bytes."""
        return self.word(RingWords.PUT) - self.word(RingWords.TAKEN)

    def take(self, bytes_taken: int, requests: int) -> None:
        """Remove requests from the ring.

        `bytes_taken` is the total number of bytes removed since the ring was created.
        """
        words = self.arrays.words
        shared.write_word(words, RingWords.TAKEN_RECORDS, self.word(RingWords.TAKEN_RECORDS) + requests)
        shared.write_word(words, RingWords.TAKEN, bytes_taken)

    def close(self) -> None:
        """Make the ring accept no more requests."""
        shared.write_word(self.arrays.words, RingWords.CLOSED, 1)


def peer_of(family: int, address: int, more_address: int) -> str:
    """Return the IP address of a peer from the words of its sockaddr."""
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, struct.pack("<qq", address, more_address))
    return socket.inet_ntop(socket.AF_INET, struct.pack("<I", address))
