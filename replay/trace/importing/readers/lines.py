"""Base of all readers of lines: scans blocks, and yields rows and rejects, whichever scanner reads the lines."""

from __future__ import annotations

import functools
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from replay.trace.dictionary import (
    Bytes,
    Int64s,
    StringTable,
    flatten,
)
from replay.trace.importing.cleaning import Cleaner
from replay.trace.importing.registry import (
    Found,
    Options,
    Probe,
    Rows,
)
from replay.trace.importing.rejects import (
    BLANK,
    HEADER,
    HEALTH_CHECK,
    NO_METHOD,
    NO_PATH,
    TOO_LONG,
)
from replay.trace.importing.sources import BLOCK_BYTES, SourceFile
from replay.trace.importing.suspects import packed_names
from replay_native.importing import field_spec, suspects, targets
from replay_native.importing import scan_table as scan

REASONS = {
    scan.BLANK: BLANK,
    scan.OTHER_FORMAT: "not this format",
    scan.BAD_TIME: "bad time",
    scan.NO_METHOD: NO_METHOD,
    scan.NO_PATH: NO_PATH,
    scan.BAD_STATUS: "bad status",
    scan.BAD_SIZE: "bad size",
    scan.TOO_LONG: TOO_LONG,
    scan.HEALTH_CHECK: HEALTH_CHECK,
    field_spec.DIRECTIVE: HEADER,
    field_spec.UNCLOSED: "quote that does not close",
    field_spec.BAD_ESCAPE: "unknown escape",
}

HEALTH_CHECKERS = (
    "kube-probe/",
    "ELB-HealthChecker/",
    "GoogleHC/",
    "Amazon-Route53-Health-Check-Service",
    "Envoy/HC",
    "Consul Health Check",
    "Amazon CloudFront Health",
    "Azure Traffic Manager Endpoint Monitor",
    "Load Balancer Agent",
)
"""User agents with these prefixes are health checks of load balancers."""

HOSTS_MAX, HOSTS_BYTES_MAX = 1 << 16, 4 << 20

_CONTROL = re.compile(rb"[\0-\x1f\x7f]")
"""Characters that no host has, because they would break the line of a request header."""

_BLOCK_BYTES_MAX = 2 * BLOCK_BYTES + 1 + scan.LINE_BYTES_MAX
"""Maximum number of bytes that are scanned at once: a block, after a record that the previous one left open."""

_ROOM = np.zeros(64, dtype=np.uint8)
"""Padding, because kernels read several bytes at a time, some of them past the end."""

_ROWS_A_SCAN = (1 << 16) + 72
_REJECTS_A_SCAN = 1 << 14


class LineReader(ABC):
    """Base of all readers of lines.

    A subclass scans a block (`_scan`) and converts it to rows (`_rows`).
    """

    def __init__(self, found: Found, options: Options, *, columns: int, state_words: int) -> None:
        self._found = found
        self._key = secrets.randbits(62)
        self._cleaner = Cleaner(found, options, learns=False)
        self._keys, self._key_ends = packed_names()
        self._keeps_secrets = options.keep_secrets
        agents = () if options.keep_health_checks else HEALTH_CHECKERS
        self._agents, self._agent_ends = flatten([agent.encode() for agent in agents])
        self._state = np.zeros(state_words, dtype=np.int64)
        self._method_words = np.zeros((scan.METHODS_MAX, 2), dtype=np.int64)
        self._columns = np.empty((columns, _ROWS_A_SCAN), dtype=np.int64)
        self._rejected = np.empty((scan.REJECT_COLUMNS, _REJECTS_A_SCAN), dtype=np.int64)
        self._name = np.empty(suspects.PARAMETER_BYTES_MAX, dtype=np.uint8)
        self._scratch = np.empty(8 * scan.LINE_BYTES_MAX, dtype=np.uint8)
        self._targets = np.empty(4 * _BLOCK_BYTES_MAX, dtype=np.uint8)
        self._target_ends = np.empty(_ROWS_A_SCAN + 1, dtype=np.int64)
        self._named_hosts = np.empty(_BLOCK_BYTES_MAX, dtype=np.uint8)
        self._host_ends = np.empty(_ROWS_A_SCAN + 1, dtype=np.int64)
        self._hosts = StringTable(HOSTS_MAX, HOSTS_BYTES_MAX)
        self.methods: list[str] = []
        self.hosts: list[str] = []

    @abstractmethod
    def probe(self, head: bytes) -> Probe:
        """Return the first timestamp in the head of a file, and the resolution of its timestamps."""

    def _begin(self, file: SourceFile, block: Bytes, end: int) -> int:
        """Return where the first line to scan begins in the first block of a file."""
        return 0

    @abstractmethod
    def _scan(self, block: Bytes, end: int) -> None:
        """Scan lines of block[state[POSITION]:end] into `_columns` and `_rejected`."""

    @abstractmethod
    def _rows(self, block: Bytes) -> Rows:
        """Return the rows of the last scan, with targets as a replay sends them."""

    def _directive(self, line: bytes) -> None:  # noqa: B027 (most formats have none)
        """Process a line that describes the lines after it."""

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file, block by block."""
        state, rejects = self._state, self._found.rejects
        lines_before = rejects.lines
        state[scan.LINES] = state[scan.BREAKS] = 0
        in_long_line, first = False, True
        for block, end in self._blocks(file):
            state[scan.POSITION] = self._begin(file, block, end) if first else 0
            first = False
            if in_long_line:
                newline = block[:end].tobytes().find(b"\n")
                state[scan.POSITION] = end if newline < 0 else newline + 1
                in_long_line = newline < 0
            while state[scan.POSITION] < end:
                before = int(state[scan.POSITION])
                self._scan(block, end)
                rejects.lines = lines_before + int(state[scan.LINES])
                self._note_rejects(file, block)
                if state[scan.ROWS]:
                    yield self._rows(block)
                if state[scan.GOES_ON]:
                    break
                if not state[scan.ROWS] and state[scan.POSITION] == before:
                    in_long_line = True
                    state[scan.LINES] += 1
                    rejects.lines += 1
                    text = block[before:end][:999].tobytes()
                    number = int(state[scan.LINES] + state[scan.BREAKS])
                    rejects.add(REASONS[scan.TOO_LONG], file.name, number, text)
                    break
                self._take_directive(block)
        rejects.lines = lines_before + int(state[scan.LINES])
        self._note_file()

    def _blocks(self, file: SourceFile) -> Iterator[tuple[Bytes, int]]:
        """Yield the blocks of a file, each after the record that the previous scan left open.

        If a record is still open after the last block, it is yielded alone.
        """
        state, left = self._state, np.empty(0, dtype=np.uint8)
        state[scan.ALL_THERE] = state[scan.GOES_ON] = 0
        for block, end in file.blocks():
            if len(left):
                block, end = np.concatenate((left, block[:end], _ROOM)), len(left) + end
            yield block, end
            left = block[int(state[scan.POSITION]) : end].copy() if state[scan.GOES_ON] else left[:0]
        if len(left):
            state[scan.ALL_THERE] = 1
            yield np.concatenate((left, _ROOM)), len(left)

    def _take_directive(self, block: Bytes) -> None:
        last = int(self._state[scan.REJECTS]) - 1
        if last >= 0 and self._rejected[scan.CODE, last] == field_spec.DIRECTIVE:
            begin, end = self._rejected[[scan.LINE_BEGIN, scan.LINE_END], last].tolist()
            self._directive(block[begin:end].tobytes())

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

    def _cleaned(self, rows: Int64s, count: int) -> tuple[Bytes, Int64s]:
        """Return the targets of the last scan, with pseudonyms in those that the kernel flagged."""
        return self._cleaner.targets(self._targets, self._target_ends[: count + 1], rows[scan.NEEDS, :count])

    def _name_methods(self) -> None:
        """Register the methods that first appeared in the last scan."""
        for words in self._method_words[len(self.methods) : self._state[scan.METHODS]]:
            self.methods.append(self._method_name(words.tobytes().rstrip(b"\0").decode("ascii")))

    def _method_name(self, name: str) -> str:
        """Return a method as a replay sends it."""
        return name

    def _host_indexes(self, named: int) -> Int64s:
        """Return the indexes in `hosts` of the hosts in the last scan; -1 for new hosts once the table is full."""
        ids, fresh = self._hosts.intern(self._named_hosts, self._host_ends[: named + 1])
        if len(fresh) and not self._hosts.closed:
            names = self._hosts.strings()
            self.hosts = [
                "" if _CONTROL.search(name) else self._host_name(name.rpartition(b"@")[2].decode("latin-1"))
                for name in names
            ]
        indexes = ids.astype(np.int64)
        return np.where(indexes < len(self.hosts), indexes, -1)

    def _scanner(self) -> scan.Scan:
        """Return the state that the scanning kernels share."""
        return scan.Scan(
            self._key,
            self._agents,
            self._agent_ends,
            self._method_words,
            self._state,
            self._columns,
            self._rejected,
        )

    def _secrets(self) -> suspects.Secrets:
        """Return the names of secret parameters, for the kernels."""
        return suspects.Secrets(self._keys, self._key_ends, self._keeps_secrets, self._name)

    def _targets_out(self) -> targets.TargetsOut:
        """Return the buffers into which kernels write targets and hosts."""
        return targets.TargetsOut(
            self._scratch, self._targets, self._target_ends, self._named_hosts, self._host_ends
        )

    def _host_name(self, name: str) -> str:
        """Normalize a host.

        The result is empty if it is not a host.
        """
        return name

    def _note_file(self) -> None:
        state, found = self._state, self._found
        found.drop("user_names", int(state[scan.USERS]))
        state[scan.USERS] = 0
        if state[scan.ZONES]:
            found.time_zone = found.time_zone or zone_text(int(state[scan.FIRST_ZONE_MIN]))
            found.time_zone_changed = bool(state[scan.ZONES] > 1)


def zone_text(minutes: int) -> str:
    """Format a zone as logs do: +0100."""
    hour, minute = divmod(abs(minutes), 60)
    return f"{'-' if minutes < 0 else '+'}{hour:02d}{minute:02d}"


SNIFFED_LINES = 2_000


def sniffed_lines(head: bytes, limit: int = SNIFFED_LINES) -> list[bytes]:
    """Return the first lines of a file that are not blank, without line ends.

    The last line of the head is omitted, because it may be cut off, unless it is the only one.
    """
    return list(_lines_of(head, limit))


@functools.lru_cache(maxsize=4)
def _lines_of(head: bytes, limit: int) -> list[bytes]:
    """Split a head for `sniffed_lines`, once for all the formats that examine it."""
    lines = head.split(b"\n", 2 * limit)
    if len(lines) > 1:
        lines.pop()
    lines = [line.rstrip(b"\r") for line in lines]
    return [line for line in lines if line.strip(b"\r\0 ")][:limit]
