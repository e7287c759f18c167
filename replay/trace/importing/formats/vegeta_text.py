"""vegeta's targets as text: a line `METHOD URL`, then headers, then optionally a line `@FILE` for the body.

Targets have no times, so that each gets the next millisecond, as JSON targets do. An import reads no other files: a
line `@FILE` is counted as `body in another file`, and its request has no body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

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
from replay.trace.importing.rejects import BLANK, BODY_ELSEWHERE, DETAIL
from replay.trace.importing.sources import SourceFile

from .vegeta import STEP_NS

_TARGET = re.compile(rb"([A-Z]{2,16}) (https?://\S+)[ \t\r]*")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t\r]*")
_OTHER = re.compile(rb"@\S.*|#.*")


def sniff(head: bytes, options: Options) -> float:
    """Return the share of the first lines, except comments, that belong to targets.

    It is 0 if the first of them is not `METHOD URL`, or with `--columns`.
    """
    lines = [line for line in sniffed_lines(head) if not line.startswith(b"#")]
    if options.columns or not lines or not _TARGET.fullmatch(lines[0]):
        return 0.0
    fits = [any(kind.fullmatch(line) for kind in (_TARGET, _HEADER, _OTHER)) for line in lines]
    return sum(fits) / len(lines)


class VegetaTextReader(RecordReader):
    """Reads targets, each with the headers below it."""

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
        record: Record | None = None
        pairs: list[tuple[bytes, bytes]] = []
        for number, line in file.lines(rejects):
            target = _TARGET.fullmatch(line)
            if target is not None:
                yield from self._whole(record, pairs)
                record, pairs = self._begun(target, file, number), []
                continue
            header = _HEADER.fullmatch(line) if record is not None else None
            if header is not None:
                pairs.append((header[1], header[2]))
            rejects.add(_kind_of(line, header is not None), file.name, number, line[:999])
        yield from self._whole(record, pairs)

    def _begun(self, target: re.Match[bytes], file: SourceFile, number: int) -> Record | None:
        record = Record(at_ns=self._count * STEP_NS, method=target[1].decode(), target=target[2])
        why = self.wrong(record)
        if why:
            self._found.rejects.add(why, file.name, number, target[0][:999])
            return None
        self._count += 1
        return record

    def _whole(self, record: Record | None, pairs: list[tuple[bytes, bytes]]) -> Iterator[Record]:
        if record is not None:
            record.headers = self.kept(end_to_end(pairs))
            yield record


def _kind_of(line: bytes, is_header: bool) -> str:
    """Return the reject reason for a line that is not the first line of a target."""
    if not line.strip():
        return BLANK
    if line.startswith(b"@"):
        return BODY_ELSEWHERE
    return DETAIL if is_header or line.startswith(b"#") else "not this format"


VEGETA_TEXT = importer(
    Importer(
        name="vegeta-text",
        title="vegeta targets (text)",
        sniff=sniff,
        reader=VegetaTextReader,
        rank=3,
        names_clients=False,
    )
)
