"""Packet captures (pcap, pcapng): HTTP/1 requests and their responses, put together from TCP segments.

A request's time is that of its first byte; its duration ends with the last byte of its response.
"""

from __future__ import annotations

from collections.abc import Iterator

from replay.trace.importing.capture.connections import Connections
from replay.trace.importing.capture.container import Capture, begins_capture, first_stamp
from replay.trace.importing.capture.conversation import Exchange
from replay.trace.importing.capture.messages import Message
from replay.trace.importing.readers.records import Record, RecordReader, end_to_end
from replay.trace.importing.registry import Found, Importer, Options, Probe, Rows, importer
from replay.trace.importing.sources import SourceFile
from replay.trace.responses import RecordedResponse
from replay_native.ground.jit import warm


def sniff(head: bytes, options: Options) -> float:
    """Whether a file begins as a capture does."""
    return 1.0 if begins_capture(head) else 0.0


class PcapReader(RecordReader):
    """Reads captures. Connections are followed within one file: what runs on into the next is cut there."""

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        warm(["trace.dictionary", "importing.targets", "importing.packets"])

    def probe(self, head: bytes) -> Probe:
        """The captures of a rotation carry their order in their first stamps; microseconds at worst."""
        return Probe(first_stamp(head), 1)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """The rows of one capture, which may have none."""
        capture, connections = Capture(file.name, file.stream()), Connections(self._found, file.name)
        for packets in capture.blocks():
            connections.take(packets)
            yield from self.rows(self._records(file, connections.finished()))
        connections.end()
        file.damaged = file.damaged or capture.damaged
        yield from self.rows(self._records(file, connections.finished()))
        for each in (*connections.notes(), *capture.losses.notes()):
            self._found.assume(each)

    def _records(self, file: SourceFile, exchanges: Iterator[Exchange]) -> Iterator[Record]:
        rejects = self._found.rejects
        for exchange in exchanges:
            rejects.lines += 1
            record = self._record(exchange)
            why = self.wrong(record)
            if why:
                line = exchange.request.start[0]
                rejects.add(why, file.name, exchange.request.number, line)
            else:
                yield record

    def _record(self, exchange: Exchange) -> Record:
        request, response = exchange.request, exchange.response
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
            took_ns=max(0, response.end_ns - request.at_ns) if response else -1,
            size=response.body_bytes if response else -1,
            headers=self.kept(end_to_end(request.headers)),
            body=request.body,
            response=self._response(response) if response else None,
            first_byte_ns=max(0, response.at_ns - request.at_ns) if response else -1,
        )

    def _response(self, response: Message) -> RecordedResponse | None:
        """A body with a hole in it is not kept: what is behind the hole is no part of its beginning."""
        body = None if response.damaged else response.body
        return self.responses.made(end_to_end(response.headers), body, size=response.body_bytes)


PCAP = importer(Importer(name="pcap", title="a packet capture", sniff=sniff, reader=PcapReader, rank=9))
