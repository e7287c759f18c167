"""Reads packet capture files (pcap and pcapng), and yields their packets as columns, ordered by time."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from replay.errors import InputError
from replay_native.importing import packets as kernels

PACKETS_AT_ONCE = 1 << 15

HELD_BACK = 1 << 11
"""How many packets are held back for sorting, because captures of several queues are slightly out of order."""

_PCAP_MAGICS = {0xA1B2C3D4: 1_000_000, 0xA1B23C4D: 1_000_000_000}
_PCAPNG_MAGIC, _BYTE_ORDER_MAGIC = 0x0A0D0D0A, 0x1A2B3C4D
_HEADER_BYTES = 24
_INTERFACE, _STATISTICS, _SIMPLE, _SECRETS = 1, 5, 3, 10
_OPTION_RESOLUTION, _OPTION_OFFSET, _OPTION_INTERFACE_DROPS, _OPTION_SYSTEM_DROPS = 9, 14, 5, 7
_TICKS_MAX = 1_000_000_000
_BLOCK_BYTES_MAX = 16 << 20

Columns = npt.NDArray[np.int64]


def begins_capture(head: bytes) -> bool:
    """Return whether a file begins as pcap or pcapng, in either byte order."""
    if len(head) < _HEADER_BYTES:
        return False
    either = {struct.unpack(order, head[:4])[0] for order in ("<I", ">I")}
    return bool(either & _PCAP_MAGICS.keys()) or (
        _PCAPNG_MAGIC in either
        and _BYTE_ORDER_MAGIC in {struct.unpack(o, head[8:12])[0] for o in ("<I", ">I")}
    )


def first_stamp(head: bytes) -> int | None:
    """Return the time of the earliest TCP packet or IP fragment in the head of a capture; None if there is none.

    Raises InputError if the file is not a capture.
    """
    first = next(Capture("", [memoryview(head)]).blocks(), None)
    return int(first.columns[kernels.AT_NS, 0]) if first is not None and first.columns.size else None


@dataclass(slots=True)
class Losses:
    """Losses that the capture itself reports, and data that could not be read."""

    drops: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """Number of dropped packets by section, interface and the option that reports them.

    Each report counts from the start of the capture, so that the last one is complete.
    """

    without_time: int = 0
    cut_in_headers: int = 0
    unknown_links: Counter[int] = field(default_factory=Counter)
    has_tls_secrets: bool = False

    def add(self, other: Losses) -> None:
        """Add the losses of another file, whose sections count from 0 again."""
        sections = 1 + max((section for section, *_ in self.drops), default=-1)
        self.drops |= {(sections + section, *rest): count for (section, *rest), count in other.drops.items()}  # type: ignore[misc]
        self.without_time += other.without_time
        self.cut_in_headers += other.cut_in_headers
        self.unknown_links += other.unknown_links
        self.has_tls_secrets |= other.has_tls_secrets

    def notes(self) -> list[str]:
        """Return a sentence for each kind of loss, for the import summary."""
        counts = {
            "packets dropped during the capture": sum(self.drops.values()),
            "packets without a time (simple packet blocks)": self.without_time,
            "packets cut off within their headers": self.cut_in_headers,
            **{
                f"packets of link type {link}, which is not read": count
                for link, count in self.unknown_links.items()
            },
        }
        notes = [f"{words}: {count:,}" for words, count in counts.items() if count]
        return (
            [*notes, "the capture has TLS secrets, but replay does not decrypt TLS"]
            if self.has_tls_secrets
            else notes
        )


@dataclass(frozen=True, slots=True)
class Packets:
    """A block of packets ordered by timestamp.

    `columns` has the rows that `replay_native.importing.packets` defines; its offsets refer to `data`.
    """

    data: npt.NDArray[np.uint8]
    columns: Columns


class Capture:
    """Reads one capture file.

    `blocks` raises InputError if it is not a capture, or if its timestamps are finer than 1 ns. Reading stops at
    damage, which `damaged` describes.
    """

    def __init__(self, name: str, pieces: Iterable[memoryview]) -> None:
        self._name, self._pieces = name, pieces
        self.damaged = ""
        self.losses = Losses()
        self._state = np.zeros(kernels.STATE_WORDS, dtype=np.int64)
        self._interfaces: list[tuple[int, int, int]] = []
        self._table = np.zeros((0, kernels.INTERFACE_WORDS), dtype=np.int64)
        self._packet = np.zeros(kernels.COLUMNS, dtype=np.int64)
        self._order = "<"
        self._sections = 0

    def blocks(self) -> Iterator[Packets]:
        """Yield the TCP packets and IP fragments in blocks, ordered by time."""
        buffer, held, begun = np.empty(1 << 20, dtype=np.uint8), 0, False
        waiting: list[Packets] = []
        for piece in self._pieces:
            if held + len(piece) > len(buffer):
                buffer = np.concatenate([buffer[:held], np.empty(held + 2 * len(piece), dtype=np.uint8)])
            buffer[held : held + len(piece)] = piece
            held += len(piece)
            if not begun:
                if held < _HEADER_BYTES:
                    continue
                begun = self._begin(buffer[:_HEADER_BYTES].tobytes())
            yield from self._ordered(waiting, buffer, held)
            if self.damaged:
                break
            done = int(self._state[kernels.POSITION])
            held -= done
            buffer[:held] = buffer[done : done + held].copy()
            self._state[kernels.POSITION] = 0
        if begun and held and not self.damaged:
            self.damaged = f"the capture ends within a packet: {held:,} bytes after the last complete one"
        if waiting:
            yield _sorted(waiting)

    def _begin(self, head: bytes) -> bool:
        """Read the file header.

        Raises InputError if the file is not a capture.
        """
        state = self._state
        if struct.unpack("<I", head[:4])[0] == _PCAPNG_MAGIC:
            state[kernels.PCAPNG] = 1
            return True
        for order in ("<", ">"):
            (magic,) = struct.unpack(order + "I", head[:4])
            if magic in _PCAP_MAGICS:
                (link,) = struct.unpack(order + "I", head[20:24])
                self._order = order
                state[kernels.SWAPPED] = order == ">"
                state[kernels.LINK], state[kernels.TICKS_PER_S] = link & 0xFFFF, _PCAP_MAGICS[magic]
                state[kernels.POSITION] = _HEADER_BYTES
                return True
        raise InputError(f"{self._name} is not a packet capture")

    def _ordered(self, waiting: list[Packets], buffer: npt.NDArray[np.uint8], end: int) -> Iterator[Packets]:
        """Yield the packets in `waiting` and the complete ones in the buffer, in order.

        The last ones stay in `waiting`, because earlier packets may still follow.
        """
        columns = np.empty((kernels.COLUMNS, PACKETS_AT_ONCE), dtype=np.int64)
        while True:
            why = kernels.scan(buffer, end, self._state, self._table, columns, self._packet)
            count = int(self._state[kernels.COUNT])
            if count:
                self._note(columns[:, :count])
                waiting.append(_copied(buffer, columns[:, :count]))
                merged = _sorted(waiting)
                waiting.clear()
                if merged.columns.shape[1] > HELD_BACK:
                    yield Packets(merged.data, merged.columns[:, :-HELD_BACK])
                    merged = _copied(merged.data, merged.columns[:, -HELD_BACK:])
                waiting.append(merged)
            if why == kernels.DAMAGED:
                at = int(self._state[kernels.PACKETS])
                self.damaged = f"damaged capture: the data after packet {at:,} is not a packet"
            if why == kernels.BLOCK and self._take_block(buffer, end):
                continue
            if why != kernels.FULL:
                return

    def _note(self, columns: Columns) -> None:
        kinds = columns[kernels.KIND]
        self.losses.cut_in_headers += int(np.count_nonzero(kinds == kernels.CUT))
        self.losses.unknown_links.update(columns[kernels.PORTS, kinds == kernels.UNKNOWN_LINK].tolist())

    def _take_block(self, buffer: npt.NDArray[np.uint8], end: int) -> bool:
        """Read the pcapng block at the current position, which is not a packet, and return whether it was read."""
        at = int(self._state[kernels.POSITION])
        if bytes(buffer[at : at + 4]) == _PCAPNG_MAGIC.to_bytes(4, "big"):
            if at + 12 > end:
                return False
            (magic,) = struct.unpack("<I", buffer[at + 8 : at + 12].tobytes())
            self._order = "<" if magic == _BYTE_ORDER_MAGIC else ">"
            self._state[kernels.SWAPPED] = self._order == ">"
            self._interfaces.clear()
            self._sections += 1
        kind, size = struct.unpack(self._order + "II", buffer[at : at + 8].tobytes())
        if size < 12 or size % 4 or size > _BLOCK_BYTES_MAX:
            self.damaged = f"damaged capture: a block cannot have {size:,} bytes"
            return False
        if at + size > end:
            return False
        self._read_block(kind, buffer[at + 8 : at + size - 4].tobytes())
        self._state[kernels.POSITION] = at + size
        return True

    def _read_block(self, kind: int, body: bytes) -> None:
        if kind == _INTERFACE and len(body) >= 8:
            link = struct.unpack(self._order + "H", body[:2])[0]
            self._interfaces.append((link, *self._clock(self._options(body[8:]))))
            self._table = np.array(self._interfaces, dtype=np.int64)
        elif kind == _STATISTICS and len(body) >= 12:
            found = self._options(body[12:])
            for name in (_OPTION_INTERFACE_DROPS, _OPTION_SYSTEM_DROPS):
                if len(found.get(name, b"")) == 8:
                    interface = struct.unpack(self._order + "I", body[:4])[0]
                    count = struct.unpack(self._order + "Q", found[name])[0]
                    self.losses.drops[self._sections, interface, name] = count
        elif kind == _SIMPLE:
            self.losses.without_time += 1
        elif kind == _SECRETS:
            self.losses.has_tls_secrets = True

    def _clock(self, options: dict[int, bytes]) -> tuple[int, int]:
        """Return the ticks per second and the time offset in seconds of an interface (if_tsresol, if_tsoffset).

        Raises InputError if a tick is shorter than 1 ns.
        """
        resolution = options.get(_OPTION_RESOLUTION, b"\x06")[:1] or b"\x06"
        power = resolution[0] & 0x7F
        ticks = 2**power if resolution[0] & 0x80 else 10**power
        if ticks > _TICKS_MAX:
            raise InputError(
                f"{self._name}: timestamps finer than 1 ns cannot be read",
                hint="editcap -F nsecpcap writes nanoseconds",
            )
        offset = options.get(_OPTION_OFFSET, b"")
        return ticks, struct.unpack(self._order + "q", offset)[0] if len(offset) == 8 else 0

    def _options(self, data: bytes) -> dict[int, bytes]:
        """Return the options of a block.

        If an option is repeated, the first one counts.
        """
        found: dict[int, bytes] = {}
        at = 0
        while at + 4 <= len(data):
            code, size = struct.unpack(self._order + "HH", data[at : at + 4])
            if code == 0:
                break
            found.setdefault(code, data[at + 4 : at + 4 + size])
            at += 4 + (size + 3) // 4 * 4
        return found


_PLACES = (kernels.BEGIN, kernels.END, kernels.IP_BEGIN)


def _used(columns: Columns) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where the needed bytes of each packet begin and end.

    They are the IP packet of a fragment, the payload of a TCP packet, and nothing of any other packet.
    """
    fragment = columns[kernels.KIND] == kernels.FRAGMENT
    wanted = fragment | (columns[kernels.KIND] == kernels.TCP)
    begins = np.where(fragment, columns[kernels.IP_BEGIN], columns[kernels.BEGIN])
    return begins, np.where(wanted, columns[kernels.END], begins)


def _copied(data: npt.NDArray[np.uint8], columns: Columns) -> Packets:
    """Copy TCP packets and IP fragments into data of their own, and drop all other packets."""
    kinds = columns[kernels.KIND]
    columns = columns[:, (kinds == kernels.TCP) | (kinds == kernels.FRAGMENT)]
    begins, ends = _used(columns)
    sizes = ends - begins
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    pieces = [data[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
    copied = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.uint8)
    columns = columns.copy()
    for row in _PLACES:
        columns[row] += offsets[:-1] - begins
    return Packets(copied, columns)


def _sorted(parts: list[Packets]) -> Packets:
    """Merge packets in the order of their timestamps.

    Packets with equal timestamps keep their order.
    """
    shifts = np.cumsum([0, *(len(part.data) for part in parts)])
    moved = [part.columns.copy() for part in parts]
    for columns, shift in zip(moved, shifts.tolist(), strict=False):
        for row in _PLACES:
            columns[row] += shift
    together = np.concatenate(moved, axis=1)
    order = np.argsort(together[kernels.AT_NS], kind="stable")
    return Packets(np.concatenate([part.data for part in parts]), together[:, order])
