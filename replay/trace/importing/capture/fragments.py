"""Reassembles IP packets from fragments (RFC 791, 3.2; RFC 8200, 4.5)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from replay_native.importing import packets as kernels

WAITING_MAX = 1 << 10
"""How many incomplete packets are held.

When another one begins, the oldest is dropped.
"""

_RAW_LINK = 101
_FRAGMENT_HEADER = 44
_EXTENSIONS = frozenset({0, 43, 60})

Bytes = npt.NDArray[np.uint8]


class Whole(NamedTuple):
    """A TCP packet built from fragments: its bytes, and its column as in `container.Packets`."""

    data: Bytes
    column: list[int]


@dataclass(slots=True)
class _Parts:
    head: bytes = b""
    size: int = -1
    parts: dict[int, bytes] = field(default_factory=dict)

    def whole(self) -> bytes | None:
        """Return the payload of the packet, None if it is incomplete.

        Where fragments overlap, the one that begins first counts.
        """
        if self.size < 0 or not self.head:
            return None
        data = bytearray()
        for offset in sorted(self.parts):
            if offset > len(data):
                return None
            data += self.parts[offset][len(data) - offset :]
        return bytes(data[: self.size]) if len(data) >= self.size else None


class _Fragment(NamedTuple):
    key: tuple[bytes, ...]
    head: bytes
    offset: int
    data: bytes
    more: bool


def _of_ipv4(packet: bytes) -> _Fragment:
    header = 4 * (packet[0] & 15)
    flags = int.from_bytes(packet[6:8], "big")
    head = packet[:6] + b"\0\0" + packet[8:header]
    key = (packet[12:20], packet[4:6], packet[9:10])
    return _Fragment(key, head, 8 * (flags & 0x1FFF), packet[header:], bool(flags & 0x2000))


def _of_ipv6(packet: bytes) -> _Fragment | None:
    at, last, kind = 40, 6, packet[6]
    while kind in _EXTENSIONS and at + 8 <= len(packet):
        last, kind, at = at, packet[at], at + 8 * (packet[at + 1] + 1)
    if kind != _FRAGMENT_HEADER or at + 8 > len(packet):
        return None
    flags = int.from_bytes(packet[at + 2 : at + 4], "big")
    head = packet[:last] + packet[at : at + 1] + packet[last + 1 : at]
    key = (packet[8:40], packet[at + 4 : at + 8])
    return _Fragment(key, head, flags & 0xFFF8, packet[at + 8 :], bool(flags & 1))


class Fragments:
    """Fragments that wait for the other fragments of their packets."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[tuple[bytes, ...], _Parts] = OrderedDict()
        self._given_up = 0

    @property
    def incomplete(self) -> int:
        """Number of packets that still lack fragments, also those that were dropped."""
        return self._given_up + len(self._waiting)

    def take(self, data: Bytes, column: list[int]) -> Whole | None:
        """Add a fragment, and return the TCP packet that it completes; None if it completes none."""
        packet = data[column[kernels.IP_BEGIN] : column[kernels.END]].tobytes()
        fragment = _of_ipv4(packet) if packet[0] >> 4 == 4 else _of_ipv6(packet)
        if fragment is None or column[kernels.MISSING]:
            return None
        parts = self._waiting.setdefault(fragment.key, _Parts())
        parts.parts.setdefault(fragment.offset, fragment.data)
        if fragment.offset == 0:
            parts.head = fragment.head
        if not fragment.more:
            parts.size = fragment.offset + len(fragment.data)
        payload = parts.whole()
        if payload is None:
            if len(self._waiting) > WAITING_MAX:
                self._waiting.popitem(last=False)
                self._given_up += 1
            return None
        del self._waiting[fragment.key]
        return self._dissected(parts.head, payload, column)

    @staticmethod
    def _dissected(head: bytes, payload: bytes, column: list[int]) -> Whole | None:
        length = len(payload) + len(head) - (0 if head[0] >> 4 == 4 else 40)
        at = 2 if head[0] >> 4 == 4 else 4
        packet = head[:at] + min(length, 0xFFFF).to_bytes(2, "big") + head[at + 2 :] + payload
        whole = np.frombuffer(packet, dtype=np.uint8).copy()
        found = np.zeros(kernels.COLUMNS, dtype=np.int64)
        kernels.dissect_frame(whole, 0, len(whole), len(whole), _RAW_LINK, found)
        if found[kernels.KIND] != kernels.TCP:
            return None
        found[kernels.AT_NS], found[kernels.NUMBER] = column[kernels.AT_NS], column[kernels.NUMBER]
        return Whole(whole, found.tolist())
