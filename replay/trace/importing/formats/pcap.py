"""Packet captures (pcap, pcapng): HTTP/1 requests and their responses, reassembled from TCP segments.

A request's timestamp is the time of its first byte. Its duration ends with the last byte of its response.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from replay.trace.importing.capture.connections import Connections, Note, noted
from replay.trace.importing.capture.container import Capture, Losses, begins_capture, first_stamp
from replay.trace.importing.capture.conversation import Exchange
from replay.trace.importing.capture.messages import Message
from replay.trace.importing.readers.records import Record, RecordReader, end_to_end
from replay.trace.importing.registry import Found, Importer, Options, Probe, Rows, importer
from replay.trace.importing.sources import SourceFile
from replay.trace.responses import RecordedResponse
from replay.units import SECOND_NS
from replay_native.ground.jit import warm

DISORDER_NS = SECOND_NS
"""How far a rotated file may begin before the last packet of the previous file.

Captures do not write their packets strictly in order.
"""


def sniff(head: bytes, options: Options) -> float:
    """Return 1 if a file begins as a capture, otherwise 0."""
    return 1.0 if begins_capture(head) else 0.0


class PcapReader(RecordReader):
    """Reads captures.

    Files that follow each other in time are a rotation: their connections continue from one file in the next.
    """

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        warm(["trace.dictionary", "importing.targets", "importing.packets"])
        self._connections: Connections | None = None
        self._losses = Losses()
        self._notes: Counter[Note] = Counter()

    def probe(self, head: bytes) -> Probe:
        """Return the time of the first packet that is read (None if there is none), and a resolution of 1 ns.

        The time orders the files of a rotation. Timestamps are not spread, because captures usually have microseconds
        or better. Raises InputError if the file is not a capture.
        """
        return Probe(first_stamp(head), 1)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one capture, possibly none."""
        first_ns, before = first_stamp(file.head), self._connections
        if before is not None and (first_ns is None or first_ns < before.last_ns - DISORDER_NS):
            yield from self._end(before)
            before = None
        self._connections = connections = before or Connections(self._found, file.name)
        connections.name = file.name
        capture = Capture(file.name, file.stream())
        for packets in capture.blocks():
            connections.take(packets)
            yield from self.rows(self._records(connections))
        file.damaged = file.damaged or capture.damaged
        self._losses.add(capture.losses)

    def rows_at_end(self) -> Iterator[Rows]:
        """Yield the rows of connections that were still open, and report what the captures lack."""
        if self._connections is not None:
            yield from self._end(self._connections)
        for each in (*noted(self._notes), *self._losses.notes()):
            self._found.assume(each)

    def _end(self, connections: Connections) -> Iterator[Rows]:
        connections.end()
        self._notes += connections.notes()
        yield from self.rows(self._records(connections))

    def _records(self, connections: Connections) -> Iterator[Record]:
        rejects = self._found.rejects
        for exchange in connections.finished():
            rejects.lines += 1
            record = self._record(exchange)
            why = self.wrong(record)
            if why:
                line = exchange.request.start[0]
                rejects.add(why, connections.name, exchange.request.number, line)
            else:
                yield record

    def _record(self, exchange: Exchange) -> Record:
        request, response = exchange.request, exchange.response
        ended = response is not None and response.end_ns >= 0
        self._found.count_unknown("duration", int(response is not None and not ended))
        host = next((value for name, value in request.headers if name.lower() == b"host"), b"")
        forwarded = next(
            (value for name, value in request.headers if name.lower() == b"x-forwarded-for"), b""
        )
        return Record(
            at_ns=request.at_ns,
            method=exchange.method.decode("latin-1"),
            target=request.start[2],
            host=host.lower().decode("latin-1"),
            client=forwarded.split(b",")[0].strip() or exchange.client,
            status=int(response.start[1]) if response else -1,
            took_ns=max(0, response.end_ns - request.at_ns) if response and ended else -1,
            size=response.body_bytes if response else -1,
            headers=self.kept(end_to_end(request.headers)),
            body=request.body,
            response=self._response(response) if response else None,
            first_byte_ns=max(0, response.at_ns - request.at_ns) if response else -1,
        )

    def _response(self, response: Message) -> RecordedResponse | None:
        """Build a response, without its body if the body is not whole; None if there is nothing to keep."""
        body = None if response.damaged else response.body
        return self.responses.made(end_to_end(response.headers), body, size=response.body_bytes)


PCAP = importer(Importer(name="pcap", title="a packet capture", sniff=sniff, reader=PcapReader, rank=9))
