"""The common and combined log formats of Apache and nginx.

`host ident user [dd/Mon/yyyy:HH:MM:SS +zzzz] "METHOD target HTTP/x" status bytes`, and anything behind it
(referer and user agent in the combined format). Apache stamps the start of a request, nginx its end, and the
line does not tell.
"""

from __future__ import annotations

import re

import numpy as np

from replay_native import scan, targets
from replay_native.jit import warm

from ..trace.dictionary import Bytes
from ..trace.manifest import Stamp
from ..units import SECOND_NS
from .lines import LineReader, sniffed_lines
from .registry import Found, Importer, Options, Probe, Rows, importer

_LINE = re.compile(rb'[^ \r\n]+ [^\[\r\n]*\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "')
_WHOLE_LINE = re.compile(_LINE.pattern + rb'.*" (?:\d{3}|-) (?:\d+|-)(?: |\r?$)')


def sniff(head: bytes, options: Options) -> float:
    """The share of the first lines that are common log lines."""
    lines = sniffed_lines(head)
    return sum(_WHOLE_LINE.match(line.lstrip(b"\0")) is not None for line in lines) / max(len(lines), 1)


class CommonLog(LineReader):
    """Reads common and combined log files with the scanner's kernels."""

    stamp: Stamp = "unknown"
    subtracts = False

    def __init__(self, found: Found, options: Options) -> None:
        warm(["dictionary", "scan", "targets"])
        super().__init__(found, options, columns=scan.ROW_COLUMNS, state_words=scan.STATE_WORDS)
        self._host_rows = np.empty(self._columns.shape[1], dtype=np.int64)

    def probe(self, head: bytes) -> Probe:
        """What the first lines say of the stamps."""
        state = np.zeros(scan.STATE_WORDS, dtype=np.int64)
        for line in head.split(b"\n"):
            found = _LINE.match(line)
            if found and scan.parse_one(np.frombuffer(bytearray(found[1]), dtype=np.uint8), state):
                return Probe(int(state[scan.CACHED_S]) * SECOND_NS, SECOND_NS)
        return Probe(None, SECOND_NS)

    def _scan(self, block: Bytes, end: int) -> None:
        scan.scan_common(
            block,
            end,
            self._key,
            self._agents,
            self._agent_ends,
            self._method_words,
            self._state,
            self._columns,
            self._rejected,
        )

    def _rows(self, block: Bytes) -> Rows:
        columns = self._columns
        count = int(self._state[scan.ROWS])
        redacted = np.zeros(1 + len(self._key_names), dtype=np.int64)
        named = targets.write_targets(
            block,
            columns,
            count,
            self._keys,
            self._key_ends,
            self._suffixes,
            self._name,
            self._scratch,
            self._targets,
            self._target_ends,
            self._named_hosts,
            self._host_ends,
            self._host_rows,
            redacted,
        )
        data, offsets = self._cleaned(columns, count, redacted)
        self._name_methods()
        hosts = np.full(count, -1, dtype=np.int64)
        hosts[self._host_rows[:named]] = self._host_indexes(named)
        return Rows(
            at_ns=columns[scan.AT_S, :count] * SECOND_NS,
            data=data,
            offsets=offsets,
            method=columns[scan.METHOD, :count],
            host=hosts,
            client_hash=columns[scan.CLIENT, :count],
            status=columns[scan.STATUS, :count],
            took_ns=None,
            bytes=columns[scan.BYTES, :count],
        )


COMMON = importer(
    Importer(
        name="common",
        title="a common or combined access log (Apache, nginx)",
        sniff=sniff,
        reader=CommonLog,
    )
)
