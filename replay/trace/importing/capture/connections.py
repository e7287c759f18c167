"""Assigns each packet of a capture to its connection, from the first segment to the last."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from replay.trace.importing.registry import Found
from replay.trace.importing.rejects import NOT_CAPTURED, REQUEST_NOT_CAPTURED
from replay.units import counted
from replay_native.importing import packets as kernels

from .container import Packets
from .conversation import Conversation, Exchange
from .fragments import Fragments
from .messages import REQUEST_LINE, STATUS_LINE

_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_MASK = 0xFFFFFFFF
CLOSED_MAX = 1 << 16
"""How many ended connections are remembered, so that their retransmitted segments do not open new ones."""

OPEN_MAX = 1 << 18
"""How many connections are tracked at once.

When another one begins, the oldest is closed.
"""

_End = tuple[int, int, int]
_Key = tuple[int, int, int, int, int, int]

Note = tuple[str, str]
"""A noun to count, and the text after it.

If the noun is empty, the count follows the text.
"""

_GAP, _GAP_BYTES = ("gap", ""), ("byte", "")


class Connections:
    """All connections of a capture, or of a rotation of captures."""

    def __init__(self, found: Found, name: str) -> None:
        self._found, self.name = found, name
        """`name` is the file that is read at present, for messages about it."""
        self._open: OrderedDict[_Key, Conversation] = OrderedDict()
        self._closed: OrderedDict[_Key, int] = OrderedDict()
        self._fragments = Fragments()
        self._finished: list[Exchange] = []
        self._first_sequences: dict[_Key, int | None] = {}
        self.last_ns = 0
        """The timestamp of the last packet."""
        self.others: Counter[tuple[str, int]] = Counter()
        """Number of connections with data that is not HTTP/1, by protocol and server port."""
        self._hole_bytes = self._holes = self._headless = self._cut_responses = 0

    def finished(self) -> Iterator[Exchange]:
        """Yield the exchanges completed since the last call."""
        yield from self._finished
        self._finished.clear()

    def take(self, packets: Packets) -> None:
        """Assign packets to their connections, and process their segments."""
        data, columns = packets.data, packets.columns
        for column in columns.T.tolist():
            if column[kernels.KIND] == kernels.FRAGMENT:
                whole = self._fragments.take(data, column)
                if whole is not None:
                    self._segment(whole.data, whole.column)
            else:
                self._segment(data, column)

    def _segment(self, data: npt.NDArray[np.uint8], column: list[int]) -> None:
        """Add a TCP segment to its connection, which it may open or close."""
        flags, ports = column[kernels.FLAGS], column[kernels.PORTS]
        source = (column[kernels.SOURCE_HIGH], column[kernels.SOURCE_LOW], ports >> 16)
        target = (column[kernels.TARGET_HIGH], column[kernels.TARGET_LOW], ports & 0xFFFF)
        self.last_ns = at_ns = column[kernels.AT_NS]
        payload = data[column[kernels.BEGIN] : column[kernels.END]].tobytes()
        if flags & _SYN:
            self._synchronise(source, target, column, acknowledges=bool(flags & _ACK))
            if not payload:
                return
        length = len(payload) + column[kernels.MISSING]
        is_up, key = self._find(source, target, payload, length)
        if key is None:
            return
        conversation = self._open[key]
        direction = conversation.up if is_up else conversation.down
        other = conversation.down if is_up else conversation.up
        sequence = column[kernels.SEQ] + bool(flags & _SYN)
        if flags & _ACK and (length or is_up):
            other.acknowledge(column[kernels.ACK])
        if length:
            direction.take(
                sequence & _MASK, payload, column[kernels.MISSING], at_ns, column[kernels.ACK], column[kernels.NUMBER]
            )  # fmt: skip
        if flags & _FIN:
            direction.finish((sequence + length) & _MASK)
        if flags & _RST or conversation.is_over:
            self._close(key)

    def _synchronise(
        self,
        source: tuple[int, int, int],
        target: tuple[int, int, int],
        column: list[int],
        *,
        acknowledges: bool,
    ) -> None:
        """Process a SYN, which opens a connection (even on reused ports) or is the server's reply."""
        if acknowledges:
            conversation = self._open.get((*target, *source))
            first = column[kernels.ACK] & _MASK
            if conversation is None:
                conversation = self._begin((*target, *source), first, begins=True)
            conversation.begin_down((column[kernels.SEQ] + 1) & _MASK)
            return
        key, first = (*source, *target), (column[kernels.SEQ] + 1) & _MASK
        if key in self._open:
            if self._first_sequences.get(key) == first:
                return
            self._close(key)
        self._begin(key, first, begins=True)

    def _begin(self, key: _Key, first: int | None, *, begins: bool) -> Conversation:
        self._closed.pop(key, None)
        if len(self._open) >= OPEN_MAX:
            self._close(next(iter(self._open)))
        client = key[0].to_bytes(8, "big", signed=True) + key[1].to_bytes(8, "big", signed=True)
        made = Conversation(
            client=client,
            port=key[5],
            begins=begins,
            sequence=first,
            done=self._finished.append,
            lost=self._lost,
        )
        self._open[key] = made
        self._first_sequences[key] = first
        return made

    def _find(self, source: _End, target: _End, payload: bytes, length: int) -> tuple[bool, _Key | None]:
        """Return whether a segment comes from the client, and its connection (None if it belongs to none)."""
        up, down = (*source, *target), (*target, *source)
        if up in self._open:
            return True, up
        if down in self._open:
            return False, down
        if not length or up in self._closed or down in self._closed:
            return True, None
        # The connection's beginning was not captured. If the payload does not show which side is the client, the side
        # with the higher port is taken.
        if REQUEST_LINE.match(payload):
            is_up = True
        elif STATUS_LINE.match(payload):
            is_up = False
        else:
            is_up = source[2] >= target[2]
        key = up if is_up else down
        self._begin(key, None, begins=False)
        self._headless += 1
        return is_up, key

    def _close(self, key: _Key) -> None:
        conversation = self._open.pop(key)
        self._first_sequences.pop(key, None)
        conversation.close(self.last_ns)
        self._closed[key] = 0
        if len(self._closed) > CLOSED_MAX:
            self._closed.popitem(last=False)
        for direction in (conversation.up, conversation.down):
            self._holes += direction.holes
            self._hole_bytes += direction.hole_bytes
        if conversation.speaks and conversation.bytes:
            self.others[conversation.speaks, conversation.port] += 1

    def end(self) -> None:
        """End the capture, and with it all its connections."""
        while self._open:
            self._close(next(iter(self._open)))

    def _lost(self, what: str, number: int) -> None:
        """Count a message that the capture lacks wholly or partly.

        `what` is `request`, `response`, or `pair` for a response whose request is missing.
        """
        rejects = self._found.rejects
        if what == "response":
            self._cut_responses += 1
            return
        rejects.lines += 1
        rejects.add(NOT_CAPTURED if what == "request" else REQUEST_NOT_CAPTURED, self.name, number, b"")

    def notes(self) -> Counter[Note]:
        """Return the counts of losses and of connections with data that is not HTTP/1, for `noted`."""
        notes: Counter[Note] = Counter()
        for (speaks, port), count in self.others.most_common():
            notes["connection", f"to port {port} spoke {speaks}, which is not read"] = count
        notes[_GAP], notes[_GAP_BYTES] = self._holes, self._hole_bytes
        notes["", "responses of unknown status (not captured whole, or not HTTP/1)"] = self._cut_responses
        notes["", "connections whose beginning was not captured"] = self._headless
        notes["", "IP packets that lack fragments"] = self._fragments.incomplete
        return notes


def noted(notes: Counter[Note]) -> list[str]:
    """Return the notes about all captures of an import, one text for each count above 0."""
    gaps, gap_bytes = notes.pop(_GAP, 0), notes.pop(_GAP_BYTES, 0)
    sentences = [
        f"{counted(count, noun)} {what}" if noun else f"{what}: {count:,}"
        for (noun, what), count in notes.items()
        if count
    ]
    if gaps:
        sentences.append(
            f"{gap_bytes:,} bytes in {counted(gaps, 'gap')} of the connections were not captured"
        )
    return sentences
