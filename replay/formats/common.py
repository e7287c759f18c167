"""The common and combined log formats of Apache and nginx.

`host ident user [dd/Mon/yyyy:HH:MM:SS +zzzz] "METHOD target HTTP/x" status bytes`, and anything behind it
(referer and user agent in the combined format). Apache stamps the start of a request, nginx its end, and the
line does not tell.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from replay_native import scan
from replay_native.jit import warm

from ..trace.dictionary import Bytes, Int64s, StringTable, flatten
from .registry import Found, Importer, Rows, importer
from .rejects import BLANK, NO_METHOD, NO_PATH
from .secrets import SECRET_NAMES, SECRET_SUFFIXES
from .sources import BLOCK_BYTES, SourceFile

REASONS = {
    scan.BLANK: BLANK,
    scan.OTHER_FORMAT: "not this format",
    scan.BAD_TIME: "bad time",
    scan.NO_METHOD: NO_METHOD,
    scan.NO_PATH: NO_PATH,
    scan.BAD_STATUS: "bad status",
    scan.BAD_SIZE: "bad size",
    scan.TOO_LONG: "too long line",
}

HOSTS_MAX, HOSTS_BYTES_MAX = 1 << 16, 4 << 20

_ROWS_A_SCAN = 1 << 16
_REJECTS_A_SCAN = 1 << 14
_SECOND_NS = 1_000_000_000
_LINE = re.compile(rb'[^ \r\n]+ [^\[\r\n]*\[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "')
_WHOLE_LINE = re.compile(_LINE.pattern + rb'.*" (?:\d{3}|-) (?:\d+|-)(?: |\r?$)')
_SNIFFED_LINES = 50


def sniff(head: bytes) -> float:
    """The share of the first lines that are common log lines."""
    lines = head.split(b"\n")
    if len(lines) > 1:
        lines.pop()
    lines = [line for line in lines if line.strip(b"\r\0 ")][:_SNIFFED_LINES]
    return sum(_WHOLE_LINE.match(line.lstrip(b"\0")) is not None for line in lines) / max(len(lines), 1)


def first_ns(head: bytes) -> int | None:
    """The first stamp, ns since the Unix epoch."""
    warm(["scan"])
    state = np.zeros(scan.STATE_WORDS, dtype=np.int64)
    for line in head.split(b"\n"):
        found = _LINE.match(line)
        if found and scan.parse_one(np.frombuffer(bytearray(found[1]), dtype=np.uint8), state):
            return int(state[scan.CACHED_S]) * _SECOND_NS
    return None


def _zone(minutes: int) -> str:
    hour, minute = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hour:02d}{minute:02d}"


class CommonLog:
    """Reads common and combined log files with the scanner's kernels."""

    def __init__(self, found: Found, keep_secrets: bool) -> None:
        warm(["dictionary", "scan"])
        self._found = found
        self._key = secrets.randbits(62)
        self._keys, self._key_ends = flatten([name.encode() for name in (*SECRET_SUFFIXES, *SECRET_NAMES)])
        self._suffixes = -1 if keep_secrets else len(SECRET_SUFFIXES)
        self._state = np.zeros(scan.STATE_WORDS, dtype=np.int64)
        self._method_words = np.zeros((scan.METHODS_MAX, 2), dtype=np.int64)
        self._columns = np.empty((scan.ROW_COLUMNS, _ROWS_A_SCAN), dtype=np.int64)
        self._rejected = np.empty((scan.REJECT_COLUMNS, _REJECTS_A_SCAN), dtype=np.int64)
        self._name = np.empty(scan.PARAMETER_BYTES_MAX, dtype=np.uint8)
        self._scratch = np.empty(4 * scan.LINE_BYTES_MAX, dtype=np.uint8)
        self._targets = np.empty(4 * (2 * BLOCK_BYTES + 1), dtype=np.uint8)
        self._target_ends = np.empty(_ROWS_A_SCAN + 1, dtype=np.int64)
        self._named_hosts = np.empty(2 * BLOCK_BYTES + 1, dtype=np.uint8)
        self._host_ends = np.empty(_ROWS_A_SCAN + 1, dtype=np.int64)
        self._host_rows = np.empty(_ROWS_A_SCAN, dtype=np.int64)
        self._hosts = StringTable(HOSTS_MAX, HOSTS_BYTES_MAX)
        self.methods: list[str] = []
        self.hosts: list[str] = []

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """The rows of one file, block by block."""
        state, rejects = self._state, self._found.rejects
        lines_before = rejects.lines
        state[scan.LINES] = 0
        in_long_line = False
        for block, end in file.blocks():
            state[scan.POSITION] = 0
            if in_long_line:
                newline = block[:end].tobytes().find(b"\n")
                state[scan.POSITION] = end if newline < 0 else newline + 1
                in_long_line = newline < 0
            while state[scan.POSITION] < end:
                before = int(state[scan.POSITION])
                scan.scan_common(
                    block, end, self._key, self._method_words, state, self._columns, self._rejected
                )
                rejects.lines = lines_before + int(state[scan.LINES])
                self._note_rejects(file, block)
                if state[scan.ROWS]:
                    yield self._rows(block)
                elif state[scan.POSITION] == before:
                    in_long_line = True
                    state[scan.LINES] += 1
                    rejects.lines += 1
                    rejects.add(
                        REASONS[scan.TOO_LONG],
                        file.name,
                        int(state[scan.LINES]),
                        block[before:end][:999].tobytes(),
                    )
                    break
        self._note_file()

    def _note_rejects(self, file: SourceFile, block: Bytes) -> None:
        rejects, count = self._found.rejects, int(self._state[scan.REJECTS])
        codes = self._rejected[scan.CODE, :count]
        for code in np.unique(codes).tolist():
            reason, places = REASONS[code], np.flatnonzero(codes == code)
            shown = 0
            while shown < len(places) and rejects.wants_example(reason):
                line, _, begin, end = self._rejected[:, places[shown]].tolist()
                rejects.add(reason, file.name, line, block[begin : min(end, begin + 999)].tobytes())
                shown += 1
            rejects.counts[reason] += len(places) - shown

    def _rows(self, block: Bytes) -> Rows:
        """The rows of the last scan; targets as they are to be sent."""
        state, columns = self._state, self._columns
        count = int(state[scan.ROWS])
        redacted = np.zeros(1, dtype=np.int64)
        named = scan.write_targets(
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
        self._found.drop("query_values", int(redacted[0]))
        for words in self._method_words[len(self.methods) : state[scan.METHODS]]:
            self.methods.append(words.tobytes().rstrip(b"\0").decode("ascii"))
        return Rows(
            at_ns=columns[scan.AT_S, :count] * _SECOND_NS,
            data=self._targets,
            offsets=self._target_ends[: count + 1],
            method=columns[scan.METHOD, :count],
            host=self._host_indexes(count, named),
            client_hash=columns[scan.CLIENT, :count],
            status=columns[scan.STATUS, :count],
            took_ns=None,
            bytes=columns[scan.BYTES, :count],
        )

    def _host_indexes(self, count: int, named: int) -> Int64s:
        hosts: npt.NDArray[np.int64] = np.full(count, -1, dtype=np.int64)
        if named:
            ids, fresh = self._hosts.intern(self._named_hosts, self._host_ends[: named + 1])
            if len(fresh) and not self._hosts.closed:
                self.hosts = [name.decode("latin-1") for name in self._hosts.strings()]
            indexes = ids.astype(np.int64)
            hosts[self._host_rows[:named]] = np.where(indexes < len(self.hosts), indexes, -1)
        return hosts

    def _note_file(self) -> None:
        state, found = self._state, self._found
        found.drop("user_names", int(state[scan.USERS]))
        state[scan.USERS] = 0
        if state[scan.ZONES]:
            found.time_zone = found.time_zone or _zone(int(state[scan.FIRST_ZONE_MIN]))
            found.time_zone_changed = bool(state[scan.ZONES] > 1)


COMMON = importer(
    Importer(
        name="common",
        title="a common or combined access log (Apache, nginx)",
        sniff=sniff,
        first_ns=first_ns,
        reader=CommonLog,
        resolution_ns=_SECOND_NS,
        stamp="unknown",
    )
)
