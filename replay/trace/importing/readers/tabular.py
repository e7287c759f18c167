"""CSV, TSV and JSON Lines with a mapping of columns: research traces, exports, custom logs.

`--columns at=TIMESTAMP,method=GET,path=/v1/chat` gives for each role its column, or a constant: a method, a path, a
host, a status. Other columns are found by their usual names. Requests of a table with neither method nor path are
`GET /`.
"""

from __future__ import annotations

import csv
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from replay.errors import InputError, UsageError
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
from replay.units import nearest
from replay_native.ground.jit import warm
from replay_native.importing import csv_record, field_spec
from replay_native.importing import scan_table as scan

from .addresses import PORT_KEYS, are_addresses, is_address
from .fields import FieldReader
from .layout import ROLES, UNITS_NS, Layout
from .lines import sniffed_lines
from .usual_names import MAKERS, START_NAMES, USUAL_NAMES

_SNIFFED_RECORDS = 2_000
"""How many records are read to recognize a table."""

_VALUES = 200
"""How many values are read to judge a column."""

_CONSTANTS = {
    "method": re.compile(r"[A-Za-z_][A-Za-z_-]{0,15}"),
    "path": re.compile(r"/[!-~]*"),
    "status": re.compile(r"[1-9]\d\d"),
}
_STAMP_ROLES = ("at", "end")


def roles_known() -> list[str]:
    """The roles accepted before `=` in --columns."""
    timed = [f"{name}_{unit}" for name in ("at", "end", "took") for unit in UNITS_NS]
    return [*ROLES, *timed]


def parse_columns(text: str) -> tuple[tuple[str, str], ...]:
    """Parse `at=COL,method=COL` into pairs. UsageError for an unknown role, or two with one meaning (`at` and `end`)."""
    pairs: list[tuple[str, str]] = []
    said: dict[str, str] = {}
    for part in next(csv.reader([text]), []) if text else []:
        role, equals, column = part.partition("=")
        role = role.strip()
        if not equals or not column:
            raise UsageError(f"--columns: {part!r} is not ROLE=COLUMN", hint="such as at=timestamp,path=url")
        if role not in roles_known():
            guess = nearest(role, roles_known())
            meant = f" (did you mean {guess}?)" if guess else ""
            raise UsageError(f"--columns: no role {role!r}{meant}", hint=f"roles: {', '.join(roles_known())}")
        name = _split_role(role)[0]
        before = said.setdefault("when" if name in _STAMP_ROLES else name, role)
        if role in dict(pairs):
            raise UsageError(f"--columns: {role} is given twice")
        if before != role:
            raise UsageError(f"--columns: {before} and {role} mean the same", hint="give one of them")
        pairs.append((role, column))
    return tuple(pairs)


def _split_role(role: str) -> tuple[str, int]:
    """Split `took_ms` into (took, ns per ms); a unit of 0 is determined from the values."""
    name, _, unit = role.rpartition("_")
    return (name, UNITS_NS[unit]) if name in ("at", "end", "took") and unit in UNITS_NS else (role, 0)


def _find(wanted: str, names: list[str]) -> int:
    """The index of a column, by name (ignoring case if necessary) or by number from 1; -1 if there is none."""
    if wanted in names:
        return names.index(wanted)
    folded = [name.casefold() for name in names]
    if wanted.casefold() in folded:
        return folded.index(wanted.casefold())
    return int(wanted) - 1 if wanted.isdigit() and 0 < int(wanted) <= len(names) else -1


def _taken(
    options: Options, names: list[str], where: str, usual_names: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, int], dict[str, str]]:
    """Roles mapped to column indexes, and constants by role. InputError if a column does not exist."""
    found: dict[str, int] = {}
    constants: dict[str, str] = {}
    for role, wanted in options.columns:
        index = _find(wanted, names)
        if index in found.values():
            raise InputError(f"--columns: {names[index]!r} has two roles", hint="a column is one thing")
        if index >= 0:
            found[role] = index
        elif role in _CONSTANTS and _CONSTANTS[role].fullmatch(wanted):
            constants[role] = wanted
        else:
            guess = nearest(wanted, names)
            meant = f" (did you mean {guess}?)" if guess else ""
            raise InputError(
                f"{where} has no column {wanted!r}{meant}", hint=f"its columns: {', '.join(names[:40])}"
            )
    said = {_split_role(role)[0] for role in (*found, *constants)}
    said |= {"at", "end"} if said & {"at", "end"} else set()
    said |= {"request", "method", "path", "query"} if "request" in said else set()
    said |= {"request"} if said & {"method", "path"} else set()
    said |= {"client", "forwarded"} if said & {"client", "forwarded"} else set()
    for role, usual in _names_by_role(names, usual_names):
        name = _split_role(role)[0]
        indexes = [i for i in (_find(each, names) for each in usual) if i >= 0 and i not in found.values()]
        if name not in said and indexes:
            found[role] = indexes[0]
            said |= {name, "at", "end"} if name in _STAMP_ROLES else {name}
            if name == "client" and len(indexes) > 1:
                found["client_other"] = indexes[1]
    return found, constants


def _names_by_role(
    names: list[str], usual_names: Mapping[str, tuple[str, ...]]
) -> list[tuple[str, tuple[str, ...]]]:
    """Roles and the usual names of their columns, in search order."""
    if usual_names is not USUAL_NAMES:
        return list(usual_names.items())
    lowered = {name.casefold() for name in names}
    maker = next((roles for known, roles in MAKERS if known <= lowered), {})
    return [*((role, (name,)) for role, name in maker.items()), *START_NAMES.items(), *USUAL_NAMES.items()]


def layout_of(
    options: Options,
    names: list[str],
    where: str,
    usual_names: Mapping[str, tuple[str, ...]] = USUAL_NAMES,
) -> tuple[Layout, dict[str, int]]:
    """The layout of a table with these columns (not how they are split), and which column has which role.

    InputError if no column is a timestamp.
    """
    found, constants = _taken(options, names, where, usual_names)
    stamps = [role for role in found if _split_role(role)[0] in _STAMP_ROLES]
    if not stamps:
        raise InputError(
            f"{where} does not say which column is the time of a request",
            hint=f"--columns at=COLUMN; its columns: {', '.join(names[:40])}",
        )
    ended = _split_role(stamps[0])[0] == "end"
    tooks = [role for role in found if _split_role(role)[0] == "took"]
    at_unit_ns = _split_role(stamps[0])[1]
    layout = Layout(
        stamp="end" if ended else "start",
        subtracts=ended and bool(tooks),
        took_unit_ns=_split_role(tooks[0])[1] if tooks else 1,
        at_unit_ns=at_unit_ns,
    )
    if "request" not in found:
        method = constants.get("method", "" if "method" in found else "GET")
        path = constants.get("path", "" if "path" in found else "/")
        layout = replace(layout, method=method, path=path)
    return replace(layout, status=int(constants.get("status", -1))), found


def role_number(role: str) -> int:
    """The role of a field under its `--columns` name."""
    name = _split_role(role)[0]
    own = {"took": field_spec.TOOK, "client_other": field_spec.CLIENT_OTHER}
    return own[name] if name in own else ROLES[name]


def _records(head: bytes, delimiter: str) -> Iterator[bytes]:
    """The first records of a table, as its scanner finds them, without one that the head may cut off."""
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
    """The fields of the first record."""
    return _fields(_first_record(head, delimiter), delimiter)


def _column(head: bytes, delimiter: str, place: int) -> list[str]:
    """The values of a column in the first records, without the very first."""
    rows = (_fields(record, delimiter) for record in islice(_records(head, delimiter), 1, _VALUES))
    return [row[place] for row in rows if len(row) > place]


def _widths(head: bytes, delimiter: str) -> list[int]:
    """The number of fields of each of the first records, without the very first."""
    records = (record for record in _records(head, delimiter) if record.strip(b"\r\0 "))
    whole = list(islice(records, _SNIFFED_RECORDS))[1:]
    return [len(_fields(record, delimiter)) for record in whole or sniffed_lines(head)[1:]]


def delimiter_of(head: bytes, delimiters: str) -> str:
    """The delimiter that splits the first record into the most fields; the first of equal ones."""
    return max(delimiters, key=lambda delimiter: len(header_fields(head, delimiter)))


def _is_header(names: list[str]) -> bool:
    """Whether a first line is a header: none of its fields is a number or a timestamp."""
    return bool(names) and not any(re.match(r"[\d.+-]+(?:$|[T :/])", name) for name in names)


_UNIT_NAMES = {1: "nanoseconds", 1_000: "microseconds", 1_000_000: "milliseconds", 1_000_000_000: "seconds"}
_SEPARATOR_LINE = re.compile(rb"sep=([,;|\t])\r?\n", re.IGNORECASE)
"""A line before the first record that tells Excel the delimiter."""


def _separator(head: bytes, delimiters: str) -> tuple[str, int]:
    """The possible delimiters, and the length of a `sep=` line if there is one."""
    found = _SEPARATOR_LINE.match(head)
    return (found[1].decode(), found.end()) if found else (delimiters, 0)


class MappedReader(FieldReader):
    """Reads columns with the given meanings, and reports the assumptions made."""

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
                f"stamps are numbers too small for dates of today: taken as {unit} since the beginning"
            )
        else:
            self._found.assume(
                f"stamps are numbers without a unit: taken as {unit} since 1970 (--columns at_ms=...)"
            )

    def _settled(
        self, layout: Layout, found: dict[str, int], names: list[str], column: Callable[[int], list[str]]
    ) -> dict[str, int]:
        """Find the roles of columns, and note the assumptions made."""

        def values(role: str) -> list[str]:
            return column(found[role])

        self._unit_given = bool(layout.at_unit_ns)
        found = self._with_queries(found, names, column)
        if layout.method and "method" not in dict(self._options.columns):
            self._found.assume(f"the recording names no method: {layout.method} (--columns method=...)")
        if "took" in found and any(map(_UNITLESS.fullmatch, values("took"))):
            name = names[found["took"]]
            self._found.assume(
                f"{name!r} names no unit: only values with one are read (--columns took_ms={name} if it is ms)"
            )
        self._host_mixed = "host" in found and "host" not in dict(self._options.columns)
        if self._host_mixed and are_addresses(values("host")):
            return self._without_host(found, names)
        return found

    def _with_queries(
        self, found: dict[str, int], names: list[str], column: Callable[[int], list[str]]
    ) -> dict[str, int]:
        """The roles of columns; of two path columns, the one with the query is taken."""
        if "path" not in found or "query" in found or "path" in dict(self._options.columns):
            return found
        usual = [_find(name, names) for name in USUAL_NAMES["path"]]
        others = [place for place in usual if place >= 0 and place not in found.values()]
        for place in (found["path"], *others):
            if any("?" in value for value in column(place)):
                return {**found, "path": place}
        return found

    def _without_host(self, found: dict[str, int], names: list[str]) -> dict[str, int]:
        """The roles of columns, corrected if the host column holds addresses."""
        name = names[found["host"]]
        found = dict(found)
        place = found.pop("host")
        if PORT_KEYS.isdisjoint(each.casefold() for each in names):
            self._found.assume(f"{name!r} is an address: neither kept as the host nor taken for the client")
        else:
            self._found.assume(f"{name!r} is an address with a port beside it: taken for the client")
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
    """Reads delimited files; the first record of each may be a header."""

    def __init__(self, found: Found, options: Options, delimiters: str) -> None:
        self._delimiters = delimiters
        self._header_bytes = 0
        super().__init__(found, options, Layout(delimiter=delimiters[0], escapes=field_spec.DOUBLED))

    def probe(self, head: bytes) -> Probe:
        """Return the first timestamp and the resolution, judged by the first lines."""
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
    """Reads JSON Lines; the keys are found in the first objects."""

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options, Layout(escapes=field_spec.JSON_ESCAPES))

    def probe(self, head: bytes) -> Probe:
        """Return the first timestamp and the resolution, judged by the first lines."""
        names = paths_of(head)
        layout, found = layout_of(self._options, names, "the file")
        found = self._settled(layout, found, names, lambda place: _values(head, names[place]))
        keys = {names[index]: role_number(role) for role, index in found.items()}
        unit_ns, least_ns = layout.at_unit_ns or self.layout.at_unit_ns, self.layout.stamp_min_ns
        self.use(
            replace(
                layout, keys=keys, escapes=field_spec.JSON_ESCAPES, at_unit_ns=unit_ns, stamp_min_ns=least_ns
            )
        )
        return super().probe(head)


def at_path(value: Any, path: str) -> Any:
    """The value at a path of an object; None if there is none."""
    if isinstance(value, dict) and path in value:
        return value[path]
    name, _, rest = path.partition(".")
    return at_path(value.get(name), rest) if rest and isinstance(value, dict) else None


def _walk(value: dict[str, Any], prefix: str, depth: int) -> Iterable[str]:
    """The paths of the values in an object; nested objects are not values themselves."""
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            if depth < 4:
                yield from _walk(inner, f"{prefix}{name}.", depth + 1)
        else:
            yield prefix + name


def _values(head: bytes, path: str) -> list[str]:
    """The values at a path in the first objects, as texts."""
    found = (at_path(value, path) for value in objects(head))
    return ["" if value is None else str(value) for value in found]


_UNITLESS = re.compile(r"\d+(?:[.,]\d+)?")
_LOG_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")


def _object(line: bytes) -> dict[str, Any] | None:
    r"""Parse a line as an object, as leniently as its reader (`\x22`, NaN, invalid UTF-8); None if it is not one."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            value = json.loads(_LOG_ESCAPE.sub(rb"\\u00\1", line).decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


@functools.lru_cache(maxsize=4)
def objects(head: bytes) -> list[dict[str, Any]]:
    """The first lines that are JSON objects."""
    return [value for line in sniffed_lines(head) if (value := _object(line)) is not None]


@functools.lru_cache(maxsize=4)
def paths_of(head: bytes) -> list[str]:
    """The keys of the first objects; a nested key is written `request.method`."""
    return list(dict.fromkeys(path for value in objects(head) for path in _walk(value, "", 0)))


def _names_requests(options: Options, names: list[str]) -> bool:
    """Whether the columns give a time and, unless the user mapped some, a request."""
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
"""Try semicolons too: spreadsheets write them where the decimal point is a comma."""

CSV = importer(
    Importer(
        name="csv",
        takes_columns=True,
        title="a table with commas or semicolons (--columns at=COLUMN,path=COLUMN)",
        sniff=_sniff_table(_CSV_DELIMITERS),
        reader=lambda found, options: TableReader(found, options, _CSV_DELIMITERS),
    )
)
PARQUET = importer(
    Importer(
        name="parquet",
        takes_columns=True,
        title="Parquet (--columns at=COLUMN,path=COLUMN)",
        sniff=lambda head, options: 0.0,
        reader=lambda found, options: TableReader(found, options, ","),
    )
)
TSV = importer(
    Importer(
        name="tsv",
        takes_columns=True,
        title="a table with tabs (--columns at=COLUMN,path=COLUMN)",
        sniff=_sniff_table("\t"),
        reader=lambda found, options: TableReader(found, options, "\t"),
    )
)
JSONL = importer(
    Importer(
        name="jsonl",
        takes_columns=True,
        title="JSON Lines (--columns at=KEY,path=KEY)",
        sniff=_sniff_json,
        reader=JsonReader,
    )
)
