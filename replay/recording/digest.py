"""XXH64 of a body that comes in pieces."""

from __future__ import annotations

import numpy as np

from replay_native.ground import xxh64 as kernels
from replay_native.ground.jit import warm

_TAIL_BYTES = 32


def prepare() -> None:
    """Load the kernels, so that the first request does not wait for them."""
    warm(["ground.xxh64"])
    Digest().add(memoryview(bytearray(b"x")))


class Digest:
    """The checksum of all pieces so far. `value` is 0 where there was none."""

    __slots__ = ("_state", "_tail")

    def __init__(self) -> None:
        self._state: np.ndarray | None = None
        self._tail: np.ndarray | None = None

    def add(self, piece: memoryview) -> None:
        """Add the next piece, of a writable buffer."""
        if self._state is None:
            self._state, self._tail = (
                np.zeros(kernels.STATE_WORDS, np.uint64),
                np.zeros(_TAIL_BYTES, np.uint8),
            )
            kernels.begin(self._state)
        kernels.update(self._state, self._tail, np.frombuffer(piece, np.uint8))

    def value(self) -> int:
        """The checksum; that of nothing where nothing came."""
        if self._state is None:
            return EMPTY
        return int(kernels.digest(self._state, self._tail))


EMPTY = 0xEF46DB3751D8E999
"""XXH64 of no bytes."""
