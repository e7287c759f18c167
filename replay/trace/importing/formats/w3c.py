"""Logs that list their fields in a `#Fields:` line: W3C extended (IIS) and CloudFront.

Both log the end of a request, in UTC; the start is `time-taken` earlier. That is in ms for IIS. It is in s for
CloudFront, and for values with a decimal point, as in the W3C draft and Tomcat's logs.
"""

from __future__ import annotations

from dataclasses import replace

from replay.trace.dictionary import Bytes
from replay.trace.importing.readers.fields import FieldReader
from replay.trace.importing.readers.layout import UNITS_NS, Layout
from replay.trace.importing.readers.lines import sniffed_lines
from replay.trace.importing.readers.templates import first_named
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    importer,
)
from replay.trace.importing.sources import SourceFile
from replay_native.importing import field_spec

FIELDS = {
    "date": field_spec.AT,
    "time": field_spec.AT_MORE,
    "cs-method": field_spec.METHOD_NAME,
    "cs-uri-stem": field_spec.TARGET,
    "cs-uri-query": field_spec.QUERY,
    "cs-uri": field_spec.TARGET,
    "x-host-header": field_spec.HOST,
    "cs-host": field_spec.HOST,
    "cs(Host)": field_spec.HOST,
    "c-ip": field_spec.CLIENT_NAME,
    "x-forwarded-for": field_spec.FORWARDED,
    "X-Forwarded-For": field_spec.FORWARDED,
    "cs(X-Forwarded-For)": field_spec.FORWARDED,
    "sc-status": field_spec.STATUS_CODE,
    "sc-bytes": field_spec.SIZE,
    "time-taken": field_spec.TOOK,
    "cs(User-Agent)": field_spec.AGENT,
}

CLOUDFRONT = [
    "date", "time", "x-edge-location", "sc-bytes", "c-ip", "cs-method", "cs(Host)", "cs-uri-stem", "sc-status",
    "cs(Referer)", "cs(User-Agent)", "cs-uri-query", "cs(Cookie)", "x-edge-result-type", "x-edge-request-id",
    "x-host-header", "cs-protocol", "cs-bytes", "time-taken",
]  # fmt: skip
"""CloudFront's fields, which are used if the header is missing."""

_HEADER = b"#Fields:"


def layout_of(names: list[str], delimiter: str, took_unit_ns: int) -> Layout:
    """Return the layout for the fields of a `#Fields:` line."""
    roles = first_named(FIELDS, names)
    kept = max((place for place, role in enumerate(roles) if role >= 0), default=-1) + 1
    subtracts = field_spec.TOOK in roles
    method = "" if field_spec.METHOD_NAME in roles else "GET"
    return Layout(
        stamp="end", subtracts=subtracts, columns=tuple(roles[:kept]), delimiter=delimiter, comment="#",
        took_unit_ns=took_unit_ns, method=method,
        escapes=field_spec.PLAIN if "x-edge-location" in names else field_spec.QUOTED,
    )  # fmt: skip


class DirectedReader(FieldReader):
    """Reads lines whose fields are listed in a `#Fields:` line, which may occur anywhere and more than once."""

    zone_known = True

    def __init__(
        self, found: Found, options: Options, delimiter: str, took_unit_ns: int, names: list[str]
    ) -> None:
        self._default, self._took_unit_ns = layout_of(names, delimiter, took_unit_ns), took_unit_ns
        self._delimiter = delimiter
        super().__init__(found, options, self._default)

    def probe(self, head: bytes) -> Probe:
        """Use the fields that the head lists (if it does), then return its first timestamp and the resolution."""
        header = next((line for line in head.split(b"\n") if line.startswith(_HEADER)), b"")
        self._delimiter = _delimiter(head, self._default.delimiter)
        if _has_point(head, self._delimiter):
            self._took_unit_ns = UNITS_NS["s"]
        self._directive(header)
        return super().probe(b"\n".join(line for line in head.split(b"\n") if not line.startswith(b"#")))

    def _begin(self, file: SourceFile, block: Bytes, end: int) -> int:
        self._delimiter = _delimiter(file.head, self._default.delimiter)
        if block[:1].tobytes() != b"#":
            self.use(self._default)
        return 0

    def _directive(self, line: bytes) -> None:
        if line.startswith(_HEADER):
            names = line[len(_HEADER) :].decode("latin-1").split()
            self.use(layout_of(names, self._delimiter, self._took_unit_ns))


def _header(head: bytes) -> list[str]:
    line = next((line for line in head.split(b"\n") if line.startswith(_HEADER)), b"")
    return line[len(_HEADER) :].decode("latin-1").split()


def _delimiter(head: bytes, usual: str) -> str:
    """Return a tab if the first line of data has enough of them for all fields, otherwise the usual delimiter.

    Some programs write W3C logs with tabs.
    """
    line = next((line for line in sniffed_lines(head) if not line.startswith(b"#")), b"")
    return "\t" if line.count(b"\t") >= max(len(_header(head)) - 1, 1) else usual


def _has_point(head: bytes, delimiter: str) -> bool:
    """Return whether a `time-taken` in the first lines has a decimal point, which IIS never writes."""
    names = _header(head)
    if "time-taken" not in names:
        return False
    place = names.index("time-taken")
    lines = [line.split(delimiter.encode()) for line in sniffed_lines(head) if not line.startswith(b"#")]
    return any(b"." in line[place] for line in lines if len(line) > place)


def _sniff_w3c(head: bytes, options: Options) -> float:
    return 0.9 if {"date", "time"} <= set(_header(head)) else 0.0


def _sniff_cloudfront(head: bytes, options: Options) -> float:
    if "x-edge-location" in _header(head):
        return 1.0
    lines = [line.split(b"\t") for line in sniffed_lines(head) if not line.startswith(b"#")]
    fits = [
        len(line) >= len(CLOUDFRONT)
        and line[0][4:5] == b"-"
        and line[5].isalpha()
        and line[7].startswith(b"/")
        for line in lines
    ]
    return sum(fits) / max(len(fits), 1)


def _register(name: str, title: str, delimiter: str, unit: str, names: list[str], rank: int) -> Importer:
    sniff = _sniff_cloudfront if name == "cloudfront" else _sniff_w3c

    def reader(found: Found, options: Options) -> DirectedReader:
        return DirectedReader(found, replace(options, time_zone="UTC"), delimiter, UNITS_NS[unit], names)

    return importer(Importer(name=name, title=title, sniff=sniff, reader=reader, rank=rank))


W3C = _register("w3c", "a W3C extended log (IIS)", " ", "ms", ["date", "time", "cs-method", "cs-uri-stem"], 1)
CLOUDFRONT_LOG = _register("cloudfront", "an access log of CloudFront", "\t", "s", CLOUDFRONT, 2)
