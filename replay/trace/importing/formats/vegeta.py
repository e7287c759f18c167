"""vegeta's targets as JSON lines: a method, a URL, headers, and a body in base64.

Targets have no times. Each gets the next millisecond from 1970 on, which keeps their order; the replay sets their
pace (`rate`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator

import msgspec

from replay.trace.importing.readers.lines import sniffed_lines
from replay.trace.importing.readers.records import Record, RecordReader, end_to_end
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    Rows,
    importer,
)
from replay.trace.importing.rejects import BLANK
from replay.trace.importing.sources import SourceFile

STEP_NS = 1_000_000


class _Target(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of a target.

    An object with other keys is not a target: in a vegeta result, for example, the body is the response's.
    """

    method: str
    url: str
    body: str = ""
    header: dict[str, list[str]] = {}


def _decoded(line: bytes) -> _Target | None:
    try:
        return msgspec.json.decode(line, type=_Target)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def sniff(head: bytes, options: Options) -> float:
    """Return the share of the first lines that are vegeta targets; 0 with `--columns`."""
    lines = sniffed_lines(head)
    return (
        sum(_decoded(line) is not None for line in lines) / max(len(lines), 1) if not options.columns else 0.0
    )


class VegetaReader(RecordReader):
    """Reads vegeta's targets as JSON lines."""

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options)
        self.stamp = "unknown"
        self._count = 0

    def probe(self, head: bytes) -> Probe:
        """Return no timestamp, because targets have none, and a resolution of 1 ns."""
        return Probe(None, 1)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file."""
        yield from self.rows(self._records(file))

    def _records(self, file: SourceFile) -> Iterator[Record]:
        rejects = self._found.rejects
        for number, line in file.lines(rejects):
            target = _decoded(line) if line.strip() else None
            if target is None:
                rejects.add("not this format" if line.strip() else BLANK, file.name, number, line[:999])
                continue
            record = self._record(target)
            why = "bad body" if record is None else self.wrong(record)
            if why or record is None:
                rejects.add(why, file.name, number, line[:999])
            else:
                self._count += 1
                yield record

    def _record(self, target: _Target) -> Record | None:
        try:
            body = base64.b64decode(target.body, validate=True)
        except (binascii.Error, ValueError):
            return None
        pairs = [
            (name.encode(), value.encode()) for name, values in target.header.items() for value in values
        ]
        return Record(
            at_ns=self._count * STEP_NS,
            method=target.method,
            target=target.url.encode(),
            headers=self.kept(end_to_end(pairs)),
            body=body,
        )


VEGETA = importer(
    Importer(
        name="vegeta",
        title="vegeta targets (JSON)",
        sniff=sniff,
        reader=VegetaReader,
        rank=3,
        names_clients=False,
    )
)
