"""Results of k6 as CSV (`--out csv=FILE`), where the time of a point is the end of a request.

So is the time of a point in k6's JSON (`makers`). Only `http_req_duration` measurements are read. Timestamps are whole
seconds, unless K6_CSV_TIME_FORMAT changes that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from replay.trace.importing.readers.rewritten import RewrittenFile, name_blanks
from replay.trace.importing.readers.tabular import TableReader, header_fields
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    Rows,
    importer,
)
from replay.trace.importing.rejects import MEASUREMENT
from replay.trace.importing.sources import SourceFile

_OTHERS = re.compile(rb"^(?!metric_name,|http_req_duration,)[^\n]+", re.MULTILINE)
_COLUMNS = (
    ("end", "timestamp"), ("took_ms", "metric_value"), ("method", "method"), ("path", "url"), ("status", "status"),
)  # fmt: skip


def sniff(head: bytes, options: Options) -> float:
    """Return 1 if the first line has k6's columns, otherwise 0; 0 with `--columns`."""
    named = {"metric_name", *(name for _, name in _COLUMNS)} <= set(header_fields(head, ","))
    return 1.0 if named and not options.columns else 0.0


class K6Reader(TableReader):
    """Reads results as CSV."""

    takes_columns = False

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, replace(options, columns=_COLUMNS), ",")
        self._blanked = 0

    def _rewrite(self, data: bytes) -> bytes:
        data, blanked = _OTHERS.subn(b"", data)
        self._blanked += blanked
        return data

    def probe(self, head: bytes) -> Probe:
        """Return the first timestamp of a request's duration, and the resolution."""
        return super().probe(_OTHERS.sub(b"", head))

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file."""
        self._blanked = 0
        yield from super().read(RewrittenFile(file, self._rewrite))  # type: ignore[arg-type]
        name_blanks(self._found.rejects, self._blanked, MEASUREMENT)


K6_CSV = importer(Importer(name="k6-csv", title="results of k6 (CSV)", sniff=sniff, reader=K6Reader, rank=3))
