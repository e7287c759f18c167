"""Reads CSV, TSV, Parquet and JSON Lines with a mapping of columns: research traces, exports, custom logs.

`--columns at=TIMESTAMP,method=GET,path=/v1/chat` gives a column for each role, or a constant for a method, a path or
a status. Other columns are found by their usual names. Requests of a table with neither method nor path are `GET /`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from replay.errors import InputError
from replay.trace.dictionary import Bytes
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    importer,
)
from replay.trace.importing.rejects import HEADER
from replay.trace.importing.sources import SourceFile
from replay_native.ground.jit import warm
from replay_native.importing import csv_record, field_spec
from replay_native.importing import scan_table as scan

from .addresses import PORT_KEYS, are_addresses, is_address
from .columns import column_place, layout_of, role_number
from .fields import FieldReader
from .json_objects import objects, paths_of, values_at
from .layout import Layout
from .lines import sniffed_lines
from .usual_names import USUAL_NAMES

_SNIFFED_RECORDS = 2_000
"""How many records are read to recognize a table."""

_VALUES = 200
"""How many records are read to judge a column."""


def _records(head: bytes, delimiter: str) -> Iterator[bytes]:
    """Yield the first records of a table, split as its scanner does.

    A record that the head may cut off is omitted.
    """
    warm(["importing.csv_record"])
    data, at = np.frombuffer(bytearray(head), dtype=np.uint8), 0
    while (newline := head.find(b"\n", at)) >= 0:
        limit = at + scan.LINE_BYTES_MAX + 1
        end = csv_record.find_record_end(data, at, newline, len(head), limit, ord(delimiter))
        if end == csv_record.UNDECIDED:
            break
        yield head[at:end]
        at = end + 1


def _fields(record: bytes, delimiter: str) -> list[str]:
    text = record.decode("utf-8", "replace")
    try:
        fields = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        fields = text.split(delimiter)
    return [field.strip() for field in fields]


def _first_record(head: bytes, delimiter: str) -> bytes:
    return next(_records(head, delimiter), head.partition(b"\n")[0])


def header_fields(head: bytes, delimiter: str) -> list[str]:
    """Return the fields of the first record."""
    return _fields(_first_record(head, delimiter), delimiter)


def _column(head: bytes, delimiter: str, place: int) -> list[str]:
    """Return the values of a column in the first records, except the very first one, which may be a header."""
    rows = (_fields(record, delimiter) for record in islice(_records(head, delimiter), 1, _VALUES))
    return [row[place] for row in rows if len(row) > place]


def _widths(head: bytes, delimiter: str) -> list[int]:
    """Return the number of fields of each of the first records that are not blank, except the very first one."""
    records = (record for record in _records(head, delimiter) if record.strip(b"\r\0 "))
    whole = list(islice(records, _SNIFFED_RECORDS))[1:]
    return [len(_fields(record, delimiter)) for record in whole or sniffed_lines(head)[1:]]


def delimiter_of(head: bytes, delimiters: str) -> str:
    """Return the delimiter that splits the first record into the most fields; the first one if several do."""
    return max(delimiters, key=lambda delimiter: len(header_fields(head, delimiter)))


def _is_header(names: list[str]) -> bool:
    """Return whether a first record is a header: none of its fields is a number or a timestamp."""
    return bool(names) and not any(re.match(r"[\d.+-]+(?:$|[T :/])", name) for name in names)


_UNIT_NAMES = {1: "nanoseconds", 1_000: "microseconds", 1_000_000: "milliseconds", 1_000_000_000: "seconds"}
_SEPARATOR_LINE = re.compile(rb"sep=([,;|\t])\r?\n", re.IGNORECASE)
"""A line before the first record that gives Excel the delimiter."""


def _separator(head: bytes, delimiters: str) -> tuple[str, int]:
    """Return the possible delimiters, and the length of a `sep=` line (0 if there is none)."""
    found = _SEPARATOR_LINE.match(head)
    return (found[1].decode(), found.end()) if found else (delimiters, 0)


class MappedReader(FieldReader):
    """Reads columns with the given meanings, and reports its assumptions."""

    takes_columns = True

    _unit_given = False
    _host_mixed = False

    def __init__(self, found: Found, options: Options, layout: Layout) -> None:
        self._address_hosts = set[str]()
        super().__init__(found, options, layout)

    def _suppose_unit(self, unit_ns: int, *, near_1970: bool) -> None:
        if self._unit_given:
            return
        unit = _UNIT_NAMES[unit_ns]
        if near_1970:
            self._found.assume(
                f"stamps are numbers too small for current dates: taken as {unit} since the start of the recording"
            )
        else:
            role = "end" if self.layout.stamp == "end" else "at"
            hint = (
                f" (--columns {role}_UNIT=NAME sets another: s, ms, us or ns)" if self.takes_columns else ""
            )
            self._found.assume(f"stamps are numbers without a unit: taken as {unit} since 1970{hint}")

    def _settled(
        self, layout: Layout, found: dict[str, int], names: list[str], column: Callable[[int], list[str]]
    ) -> dict[str, int]:
        """Return the final roles of columns, after checking their values, and add the assumptions made."""

        def values(role: str) -> list[str]:
            return column(found[role])

        self._unit_given = bool(layout.at_unit_ns)
        found = self._with_queries(found, names, column)
        if "took" in found and any(map(_UNITLESS.fullmatch, values("took"))):
            name = names[found["took"]]
            self._found.assume(
                f"values of {name!r} that have no unit are not read (--columns took_ms={name} if they are in ms)"
            )
        self._host_mixed = "host" in found and "host" not in dict(self._options.columns)
        if self._host_mixed and are_addresses(values("host")):
            return self._without_host(found, names)
        return found

    def _with_queries(
        self, found: dict[str, int], names: list[str], column: Callable[[int], list[str]]
    ) -> dict[str, int]:
        """Return the roles of columns with the path column that contains queries, if one of several does."""
        if "path" not in found or "query" in found or "path" in dict(self._options.columns):
            return found
        usual = [column_place(name, names) for name in USUAL_NAMES["path"]]
        others = [place for place in usual if place >= 0 and place not in found.values()]
        for place in (found["path"], *others):
            if any("?" in value for value in column(place)):
                return {**found, "path": place}
        return found

    def _without_host(self, found: dict[str, int], names: list[str]) -> dict[str, int]:
        """Return the roles of columns without the host, whose column holds addresses.

        If there is a port column, the addresses are the client's.
        """
        name = names[found["host"]]
        found = dict(found)
        place = found.pop("host")
        if PORT_KEYS.isdisjoint(each.casefold() for each in names):
            self._found.assume(
                f"most values of {name!r} are addresses: neither kept as the host nor taken for the client"
            )
        else:
            self._found.assume(
                f"most values of {name!r} are addresses, and a port is beside them: taken for the client"
            )
            if "client" in found:
                found["client_other"] = place
            else:
                found["client"] = place
        return found

    def _host_name(self, name: str) -> str:
        if not self._host_mixed or not is_address(name):
            return name
        self._address_hosts.add(name)
        self._found.unknown_values["host (an address)"] = len(self._address_hosts)
        return ""


class TableReader(MappedReader):
    """Reads delimited files.

    The first record of each may be a header.
    """

    def __init__(self, found: Found, options: Options, delimiters: str) -> None:
        self._delimiters = delimiters
        self._header_bytes = 0
        super().__init__(found, options, Layout(delimiter=delimiters[0], escapes=field_spec.DOUBLED))

    def probe(self, head: bytes) -> Probe:
        """Find the delimiter and the columns in the head, then return its first timestamp and the resolution.

        Raises InputError as `layout_of` does.
        """
        self._take(head, "the file")
        lines = head[self._header_bytes :]
        return super().probe(lines) if lines else Probe(None, 1)

    def _take(self, head: bytes, where: str) -> None:
        delimiters, begin = _separator(head, self._delimiters)
        head = head[begin:]
        delimiter = delimiter_of(head, delimiters)
        names = header_fields(head, delimiter)
        header = len(_first_record(head, delimiter)) + 1 if _is_header(names) else 0
        self._header_bytes = begin + header
        if not header:
            names = [str(number) for number in range(1, len(names) + 1)]
        layout, found = layout_of(self._options, names, where)
        found = self._settled(layout, found, names, lambda place: _column(head, delimiter, place))
        roles = [-1] * (max(found.values()) + 1)
        for role, index in found.items():
            roles[index] = role_number(role)
        unit_ns = layout.at_unit_ns or self.layout.at_unit_ns
        self.use(
            replace(
                layout,
                delimiter=delimiter,
                escapes=field_spec.DOUBLED,
                columns=tuple(roles),
                at_unit_ns=unit_ns,
                stamp_min_ns=self.layout.stamp_min_ns,
                decimal="." if delimiter == "," else ",",
            )
        )

    def _begin(self, file: SourceFile, block: Bytes, end: int) -> int:
        head = block[: min(end, 1 << 16)].tobytes()
        self._take(head, file.name)
        separator = _separator(head, "")[1]
        for number, header in enumerate((head[:separator], head[separator : self._header_bytes]), 1):
            if header:
                self._state[scan.LINES] += 1
                self._state[scan.BREAKS] += header[:-1].count(b"\n")
                self._found.rejects.add(HEADER, file.name, number if separator else 1, header)
        return self._header_bytes


class JsonReader(MappedReader):
    """Reads JSON Lines.

    The first objects determine the keys.
    """

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options, Layout(escapes=field_spec.JSON_ESCAPES))

    def probe(self, head: bytes) -> Probe:
        """Find the keys in the head, then return its first timestamp and the resolution.

        Raises InputError as `layout_of` does.
        """
        names = paths_of(head)
        layout, found = layout_of(self._options, names, "the file")
        found = self._settled(layout, found, names, lambda place: values_at(head, names[place]))
        keys = {names[index]: role_number(role) for role, index in found.items()}
        unit_ns, least_ns = layout.at_unit_ns or self.layout.at_unit_ns, self.layout.stamp_min_ns
        self.use(
            replace(
                layout, keys=keys, escapes=field_spec.JSON_ESCAPES, at_unit_ns=unit_ns, stamp_min_ns=least_ns
            )
        )
        return super().probe(head)


_UNITLESS = re.compile(r"\d+(?:[.,]\d+)?")


def _names_requests(options: Options, names: list[str]) -> bool:
    """Return whether the columns give a time and, unless the user mapped some, a request."""
    try:
        _, found = layout_of(options, names, "")
    except InputError:
        return False
    return bool(options.columns) or not {"path", "request"}.isdisjoint(found)


def _sniff_table(delimiters: str) -> Any:
    def sniff(head: bytes, options: Options) -> float:
        possible, begin = _separator(head, delimiters)
        head = head[begin:]
        delimiter = delimiter_of(head, possible)
        names = header_fields(head, delimiter)
        if len(names) < 2 and not options.columns:
            return 0.0
        if not _is_header(names) or not _names_requests(options, names):
            return 0.0
        widths = _widths(head, delimiter)
        return 0.9 * sum(width >= len(names) for width in widths) / max(len(widths), 1)

    return sniff


def _sniff_json(head: bytes, options: Options) -> float:
    lines = sniffed_lines(head)
    found = objects(head)
    if not _names_requests(options, paths_of(head)):
        return 0.0
    return 0.8 * len(found) / max(len(lines), 1)


_CSV_DELIMITERS = ",;"
"""Semicolons are tried as well, because spreadsheets write them where the decimal separator is a comma."""

CSV = importer(
    Importer(
        name="csv",
        takes_columns=True,
        title="a table with commas or semicolons",
        sniff=_sniff_table(_CSV_DELIMITERS),
        reader=lambda found, options: TableReader(found, options, _CSV_DELIMITERS),
    )
)
PARQUET = importer(
    Importer(
        name="parquet",
        takes_columns=True,
        title="a Parquet table",
        sniff=lambda head, options: 0.0,
        reader=lambda found, options: TableReader(found, options, ","),
    )
)
TSV = importer(
    Importer(
        name="tsv",
        takes_columns=True,
        title="a table with tabs",
        sniff=_sniff_table("\t"),
        reader=lambda found, options: TableReader(found, options, "\t"),
    )
)
JSONL = importer(
    Importer(
        name="jsonl",
        takes_columns=True,
        title="JSON Lines",
        sniff=_sniff_json,
        reader=JsonReader,
    )
)
