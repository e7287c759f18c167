"""Packet captures (pcap, pcapng): HTTP/1 requests and their responses, put together from TCP segments.

A request's time is that of its first byte; its duration ends with the last byte of its response.
"""

from __future__ import annotations

from collections.abc import Iterator

from replay.errors import InputError
from replay.trace.importing.capture.connections import Connections
from replay.trace.importing.capture.container import Capture, begins_capture, first_stamp
from replay.trace.importing.capture.conversation import TLS, Exchange
from replay.trace.importing.readers.records import Record, RecordReader, end_to_end
from replay.trace.importing.registry import Found, Importer, Options, Probe, Rows, importer
from replay.trace.importing.sources import SourceFile
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
        """The rows of one capture. InputError where it has no HTTP/1 at all."""
        capture, connections = Capture(file.name, file.stream()), Connections(self._found, file.name)
        rows_before = self._found.rejects.lines
        for packets in capture.blocks():
            connections.take(packets)
            yield from self.rows(self._records(file, connections.finished()))
        connections.end()
        file.damaged = file.damaged or capture.damaged
        yield from self.rows(self._records(file, connections.finished()))
        self._report(file, capture, connections, self._found.rejects.lines == rows_before)

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
        )

    def _report(
        self, file: SourceFile, capture: Capture, connections: Connections, nothing_read: bool
    ) -> None:
        """What the capture lacks and what was no HTTP/1, counted by protocol and port."""
        losses, said = capture.losses, connections.said()
        if losses.dropped:
            said.append(f"packets dropped while it was captured: {losses.dropped:,}")
        if losses.without_time:
            said.append(f"packets without a time (simple packet blocks): {losses.without_time:,}")
        if losses.cut_in_headers:
            said.append(f"packets cut off within their headers: {losses.cut_in_headers:,}")
        for link, count in losses.unknown_links.items():
            said.append(f"packets of link type {link}, which is not read: {count:,}")
        if nothing_read:
            speaks_tls = any(speaks == TLS for speaks, _ in connections.others)
            raise InputError(
                f"{file.name} has no HTTP/1 request" + (f": {'; '.join(said)}" if said else ""),
                hint="encrypted traffic is not read: capture where TLS has ended, or record it with a proxy"
                if speaks_tls
                else "",
            )
        for each in said:
            self._found.assume(each)


PCAP = importer(Importer(name="pcap", title="a packet capture", sniff=sniff, reader=PcapReader, rank=9))
