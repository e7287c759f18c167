"""The common and combined log formats of Apache and nginx.

`host ident user [dd/Mon/yyyy:HH:MM:SS +zzzz] "METHOD target HTTP/x" status bytes`, then anything (referer and user
agent in the combined format). Apache logs the start of a request, nginx its end, and the line does not show which.

Most logs have exactly this form, and a dedicated scanner reads them. The field scanner reads the variants: a virtual
host or an `X-Forwarded-For` before the client, timestamps with a fraction or without a zone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from replay.trace.dictionary import Bytes
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    Rows,
    importer,
)
from replay.trace.importing.sources import SourceFile
from replay.trace.manifest import Stamp
from replay.units import SECOND_NS
from replay_native.ground.jit import warm
from replay_native.importing import common_log, field_spec, targets
from replay_native.importing import scan_table as scan

from .addresses import are_addresses, is_address
from .fields import FieldReader
from .layout import Layout, template
from .lines import SNIFFED_LINES, LineReader, sniffed_lines
from .templates import NAMES, TemplateReader, share

_LINE = re.compile(
    rb'(?P<who>[^ \[\r\n"][^\[\r\n"]*) \[(?P<at>(?:\d\d/[A-Z][a-z]{2}/\d{4}:|(?P<iso>\d{4}-\d\d-\d\d[T ]))\d\d:\d\d:\d\d'
    rb'(?P<zone>[.,\d]*(?: ?[+-]\d\d:?\d\d| ?Z| UTC| GMT)?))\] "'
)
_WHOLE_LINE = re.compile(_LINE.pattern + rb'.*" (?:\d{3}|-)(?: (?:\d+|-)(?: |\r?$)|\r?$)')
_ZONE = re.compile(rb" [+-]\d{4}")
_PREFIXED = re.compile(r"(?:\S*/\S*|\d+|\S+:\d+):\S+")
"""A client after the name of a file or the number of a line, as `grep` prints them."""

_HOST = re.compile(r"[\w.-]+(?::\d+)?")
_BEHIND = re.compile(rb'" (?:\d{3}|-) (?:\d+|-) "(?:[^"\\]|\\.)*" "(?:[^"\\]|\\.)*" "([^"]*)"')
_PLAIN, _HOST_FIRST, _FORWARDED_FIRST, _ODD = "plain", "host", "forwarded", "odd"
_ODD_SHARE = 0.55
"""The weight of a line with the timestamp and request of the common log, but an unknown beginning."""

_NEAR = 400
"""How many lines are examined to find the variant of a log."""

_VARIANT_SHARE = 0.01
"""If more than this share of the lines are variants, the field scanner reads the log, because it knows all variants."""

_SERVER_PORTS = (":80", ":443")


def _kind(who: list[str]) -> str:
    """Classify the words before the timestamp.

    They are `client ident user`, possibly after a virtual host or forwarded addresses.
    """
    if len(who) >= 4 and is_address(who[1]):
        if is_address(who[0]) or who[0] == "-" or who[0].endswith(","):
            return _FORWARDED_FIRST
        return _HOST_FIRST if _HOST.fullmatch(who[0]) else _ODD
    if _PREFIXED.fullmatch(who[0]) and not is_address(who[0]):
        return _ODD
    if len(who) == 3 or (len(who) > 3 and (who[1] == "-" or is_address(who[0]))):
        return _PLAIN
    return _ODD


def _lines_of(head: bytes, limit: int = SNIFFED_LINES) -> list[tuple[str, list[str], bool]]:
    """Return the lines among the first `limit` that have the form of the common log.

    Each is its kind, the words before its timestamp, and whether the dedicated scanner can read that timestamp.
    """
    found = (_WHOLE_LINE.match(line.lstrip(b"\0")) for line in sniffed_lines(head, limit))
    return [
        (_kind(who := each["who"].decode("latin-1").split(" ")), who, _is_usual(each))
        for each in found
        if each
    ]


def _is_usual(line: re.Match[bytes]) -> bool:
    """Return whether the dedicated scanner reads the timestamp of a line."""
    return line["iso"] is None and _ZONE.fullmatch(line["zone"]) is not None


def sniff(head: bytes, options: Options) -> float:
    """Return the share of the first lines that are common log lines.

    A line with an unknown beginning counts about half.
    """
    fits = [_ODD_SHARE if kind == _ODD else 1.0 for kind, _, _ in _lines_of(head)]
    return sum(fits) / max(len(sniffed_lines(head)), 1)


def _has_forwarded(head: bytes) -> bool:
    """Return whether the first lines have a quoted list of addresses (X-Forwarded-For) after the user agent."""
    fields = [
        found[1].decode("latin-1") for line in sniffed_lines(head, _NEAR) if (found := _BEHIND.search(line))
    ]
    present = [field for field in fields if field not in ("", "-")]
    return bool(present) and are_addresses(map(_first_address, present))


def _first_address(field: str) -> str:
    """Return the first address of a list (`unknown, 203.0.113.7`), or its first word if it has no address."""
    words = [word.strip() for word in field.split(",")]
    return next(filter(is_address, words), words[0])


class CommonLog(LineReader):
    """Reads common and combined log files with the dedicated kernels."""

    stamp: Stamp = "unknown"
    subtracts = False

    def __init__(self, found: Found, options: Options) -> None:
        warm(["trace.dictionary", "importing.common_log", "importing.targets"])
        super().__init__(found, options, columns=scan.ROW_COLUMNS, state_words=scan.STATE_WORDS)
        self._host_rows = np.empty(self._columns.shape[1], dtype=np.int64)

    def expect_forwarded(self, expected: bool) -> None:
        """Set whether the client is the quoted field after the user agent, on lines where that holds an address."""
        self._state[scan.FORWARDED_LAST] = expected

    def probe(self, head: bytes) -> Probe:
        """Return the first timestamp in the head (None if it has none), and a resolution of 1 s."""
        state = np.zeros(scan.STATE_WORDS, dtype=np.int64)
        at = 0
        while at < len(head):
            found = _LINE.match(head, at)
            at = head.find(b"\n", at) + 1 or len(head)
            if found and common_log.parse_one(np.frombuffer(bytearray(found["at"]), dtype=np.uint8), state):
                return Probe(int(state[scan.CACHED_S]) * SECOND_NS, SECOND_NS)
        return Probe(None, SECOND_NS)

    def _scan(self, block: Bytes, end: int) -> None:
        common_log.scan_common(block, end, self._scanner())

    def _rows(self, block: Bytes) -> Rows:
        columns = self._columns
        count = int(self._state[scan.ROWS])
        named = targets.write_targets(
            block, columns, count, self._secrets(), self._targets_out(), self._host_rows
        )
        data, offsets = self._cleaned(columns, count)
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


class CommonFields(TemplateReader):
    """Reads the variants of common and combined log files with the field scanner."""

    def probe_as_it_is(self, head: bytes) -> Probe:
        """Return the first timestamp and the resolution, read with the layout in use."""
        return FieldReader.probe(self, head)

    def _begin(self, file: SourceFile, block: Bytes, end: int) -> int:
        self.use(_layout(file.head))
        return 0

    def _host_name(self, name: str) -> str:
        for port in _SERVER_PORTS:
            name = name.removesuffix(port)
        return name


_LAYOUTS = tuple(
    template(
        f'{before}$client $ident $user [$at] "$request" $status{behind}',
        NAMES,
        stamp="unknown",
        escapes=field_spec.LOG,
    )
    for before in ("", "$host ", "$forwarded ")
    for behind in (
        ' $bytes "$referer" "$agent" "$forwarded"',
        ' $bytes "$referer" "$agent"',
        " $bytes $rest",
        " $bytes",
        "",
    )
)


def _layout(head: bytes) -> Layout:
    """Return the variant that fits the first lines best."""
    kinds = Counter(kind for kind, _, _ in _lines_of(head))
    first = 5 * {_HOST_FIRST: 1, _FORWARDED_FIRST: 2}.get(
        max(kinds, key=kinds.__getitem__, default=_PLAIN), 0
    )
    return max(
        _LAYOUTS[first + (not _has_forwarded(head)) : first + 5], key=lambda layout: share(head, layout)
    )


class CommonReader:
    """Reads common logs with the dedicated scanner.

    If one of the files is a variant, the field scanner reads all of them.
    """

    def __init__(self, found: Found, options: Options) -> None:
        self._found, self._options = found, options
        self._scanner: CommonLog | None = CommonLog(found, options)
        self._fields: CommonFields | None = None

    @property
    def _reader(self) -> LineReader:
        if self._fields is not None:
            return self._fields
        assert self._scanner is not None
        return self._scanner

    @property
    def methods(self) -> list[str]:
        """Method names by index, of the scanner in use."""
        return self._reader.methods

    @property
    def hosts(self) -> list[str]:
        """Hosts by index, of the scanner in use."""
        return self._reader.hosts

    @property
    def stamp(self) -> Stamp:
        """Unknown, because Apache logs the start and nginx the end, and the lines look the same."""
        return "unknown"

    @property
    def subtracts(self) -> bool:
        """False, because the lines have no duration."""
        return False

    def probe(self, head: bytes) -> Probe:
        """Return the first timestamp and the resolution; if the file is a variant, choose the field scanner."""
        lines = _lines_of(head, _NEAR) or _lines_of(head)
        variants = sum(kind not in (_PLAIN, _ODD) or not usual for kind, _, usual in lines)
        if variants > _VARIANT_SHARE * len(lines):
            self._fields = self._fields or CommonFields(self._found, self._options, _LAYOUTS)
        self._note_clients(lines)
        if self._fields is not None:
            self._fields.use(_layout(head))
            return self._fields.probe_as_it_is(head)
        return self._reader.probe(head)

    def _note_clients(self, lines: list[tuple[str, list[str], bool]]) -> None:
        """Add an assumption if most clients are neither addresses nor names with a dot."""
        clients = [who[kind in (_HOST_FIRST, _FORWARDED_FIRST)] for kind, who, _ in lines]
        named = [client for client in clients if is_address(client.rstrip(",")) or "." in client]
        if clients and 2 * len(named) < len(clients):
            self._found.assume(
                "most clients are neither addresses nor host names: each different value is taken for a client"
            )

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file, block by block."""
        if self._fields is not None:
            yield from self._fields.read(file)
            return
        assert self._scanner is not None
        self._scanner.expect_forwarded(_has_forwarded(file.head))
        yield from self._scanner.read(file)


COMMON = importer(
    Importer(
        name="common",
        title="a common or combined access log (Apache, nginx)",
        sniff=sniff,
        reader=CommonReader,
    )
)
