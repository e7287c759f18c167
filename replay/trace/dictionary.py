"""Python interfaces of the dictionary kernels, which map strings to ids and hashes to dense ids."""

from __future__ import annotations

import math
import mmap
import secrets
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from replay_native.ground.jit import warm
from replay_native.trace import dictionary as kernels

Int64s = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Ids = npt.NDArray[np.uint32]

_SLOTS_MIN = 1 << 16
"""Initial number of slots of a large table, small enough to stay in the CPU cache."""


def flatten(strings: list[bytes]) -> tuple[Bytes, Int64s]:
    """Concatenate strings, and return the data (uint8[]) with the offsets of the strings (int64[n + 1])."""
    data = np.frombuffer(bytearray(b"".join(strings)), dtype=np.uint8)
    offsets = np.zeros(len(strings) + 1, dtype=np.int64)
    np.cumsum([len(string) for string in strings], out=offsets[1:])
    return data, offsets


class StringTable:
    """Maps byte strings, each with two extra words, to ids in order of first appearance.

    At most `entries_max` strings with `bytes_max` bytes in total are remembered. After that, `closed` is true, and
    each unknown string gets a new id every time. Memory is allocated only as the table fills.
    """

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        warm(["trace.dictionary"])
        self._slots = np.zeros(min(_SLOTS_MIN, _slots_for(entries_max)), dtype=np.int64)
        self._store: Bytes = _mapped((bytes_max,), np.uint8)
        self._entries: Int64s = _mapped((entries_max, kernels.ENTRY_WORDS), np.int64)
        self._state = np.zeros(kernels.STATE_WORDS, dtype=np.int64)
        self._state[kernels.SEED] = secrets.randbits(62)
        self._hashes = np.empty(kernels.HASHED_AHEAD, dtype=np.int64)

    def arrays(self, more: int) -> kernels.Table:
        """Return the table in the form that kernels take, with slots for `more` further strings."""
        wanted = _slots_for(min(len(self) + more, len(self._entries)))
        if wanted > len(self._slots):
            slots: Int64s = _mapped((wanted,), np.int64)
            kernels.move_slots(self._slots, slots)
            self._slots = slots
        return kernels.Table(self._slots, self._store, self._entries, self._state)

    @property
    def closed(self) -> bool:
        """Return whether a string did not fit."""
        return bool(self._state[kernels.CLOSED])

    def __len__(self) -> int:
        return int(self._state[kernels.ENTRIES])

    def strings(self) -> list[bytes]:
        """Return the remembered strings, in the order of their ids."""
        data = self._store[: self._state[kernels.STORED_BYTES]].tobytes()
        places = self._entries[: len(self), kernels.PLACE] >> kernels.LENGTH_BITS
        begins = [*places.tolist(), len(data)]
        return [data[begin:end] for begin, end in pairwise(begins)]

    def intern(
        self,
        data: Bytes,
        offsets: Int64s,
        words: Int64s | None = None,
        first: int = 0,
        last: int | None = None,
    ) -> tuple[Ids, Int64s]:
        """Return the ids of strings `first` to `last` of (data, offsets), and the indexes of the new strings, in order.

        `last` is not included; None is the end. `words` has two extra words for each string; without it, they are zero.
        """
        last = len(offsets) - 1 if last is None else last
        if words is None:
            words = np.zeros((len(offsets) - 1, 2), dtype=np.int64)
        ids = np.empty(last - first, dtype=np.uint32)
        fresh = np.empty(last - first, dtype=np.int64)
        table = self.arrays(last - first)
        strings = kernels.Strings(data, offsets)
        count = kernels.intern(strings, words, first, last, table, self._hashes, ids, fresh)
        return ids, fresh[:count]


def _mapped(shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Return zeros in separately mapped pages.

    The system allocates the memory only when it is used, and frees it when the array is dropped.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), dtype, math.prod(shape)).reshape(shape)


def _slots_for(entries: int) -> int:
    return 1 << max(4, (2 * entries - 1).bit_length())


class ClientTable:
    """Maps keyed hashes of client addresses to dense ids, in order of first appearance.

    The hashes stay in memory and are never written. Beyond `clients_max` clients, unknown ones share ids, so that
    memory stays bounded.
    """

    def __init__(self, clients_max: int = 1 << 22) -> None:
        warm(["trace.dictionary"])
        self._slots = np.zeros(1 << 16, dtype=np.int64)
        self._ids = np.zeros(1 << 16, dtype=np.uint32)
        self._state = np.array([0, clients_max], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._state[0])

    @property
    def full(self) -> bool:
        """Return whether clients may share ids."""
        return bool(self._state[0] >= self._state[1])

    def number(self, hashes: Int64s) -> Ids:
        """Return the client id of each hash (int64[n])."""
        needed = 2 * min(len(self) + len(hashes), int(self._state[1]))
        if needed > len(self._slots):
            slots = np.zeros(1 << needed.bit_length(), dtype=np.int64)
            ids = np.zeros(len(slots), dtype=np.uint32)
            kernels.rehash(self._slots, self._ids, slots, ids)
            self._slots, self._ids = slots, ids
        numbers = np.empty(len(hashes), dtype=np.uint32)
        kernels.dense_ids(hashes, self._slots, self._ids, self._state, numbers)
        return numbers
