"""An importer: lines of a time in milliseconds, a client, a method and a target.

1700000000000 10.0.0.7 GET /users/7?page=2
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from replay.trace.importing import Importer, Options, Probe, Rows
from replay.trace.importing.readers.records import Record, RecordReader
from replay.trace.importing.sources import SourceFile

MS_NS = 1_000_000
LINE = re.compile(rb"(\d{13}) ([\d.:a-f]+) ([A-Z]+) (/\S*)")


def sniff(head: bytes, options: Options) -> float:
    """The share of the first lines that are of this format."""
    lines = head.splitlines()[:50]
    return sum(LINE.fullmatch(line) is not None for line in lines) / max(len(lines), 1)


class StampedReader(RecordReader):
    """Makes records of lines; a line that is none is counted with its number."""

    def probe(self, head: bytes) -> Probe:
        """The first stamp, and how fine stamps are."""
        first = LINE.match(head)
        return Probe(int(first[1]) * MS_NS if first else None, MS_NS)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """The rows of one file."""
        yield from self.rows(self._records(file))

    def _records(self, file: SourceFile) -> Iterator[Record]:
        for number, line in file.lines(self._found.rejects):
            found, why = LINE.fullmatch(line), "not this format"
            if found is not None:
                record = Record(
                    at_ns=int(found[1]) * MS_NS, method=found[3].decode(), target=found[4], client=found[2]
                )
                why = self.wrong(record)
                if not why:
                    yield record
                    continue
            self._found.rejects.add(why, file.name, number, line)


IMPORTER = Importer(
    name="stamped", title="stamped lines (TIME CLIENT METHOD TARGET)", sniff=sniff, reader=StampedReader
)
