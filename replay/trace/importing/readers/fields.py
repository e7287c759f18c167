"""Reads files of lines with the field scanner, which reads all line formats except the usual form of the common log."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator

import numpy as np

from replay import units
from replay.trace.dictionary import Bytes, Int64s
from replay.trace.importing.registry import (
    Found,
    Options,
    Probe,
    Rows,
)
from replay.trace.importing.sources import SourceFile
from replay.trace.manifest import Stamp
from replay_native.ground.jit import warm
from replay_native.importing import field_log as kernels
from replay_native.importing import (
    field_spec,
    field_targets,
    json_cut,
    times,
)
from replay_native.importing import scan_table as scan

from .layout import Layout
from .lines import LineReader
from .local_times import Clock

_LIKELY_FROM_NS, _POSSIBLE_FROM_NS = (
    round(dt.datetime(year, 1, 1, tzinfo=dt.UTC).timestamp()) * units.SECOND_NS for year in (1990, 1980)
)
"""If the largest bare number is a time in 1990 or later, bare numbers before 1980 are not times."""

_SMALL_METHODS = frozenset({"get", "head", "post", "put", "patch", "delete", "options"})

_UNKNOWN = {
    field_spec.UNKNOWN_STATUS: "status",
    field_spec.UNKNOWN_SIZE: "bytes",
    field_spec.UNKNOWN_TOOK: "duration",
}


class FieldReader(LineReader):
    """Reads lines of one layout.

    A subclass may determine the layout from each file's head (`_begin`).
    """

    zone_known = False
    """Whether the format defines the zone of its timestamps."""

    takes_columns = False
    """Whether notes on a missing method, path or unit suggest `--columns`."""

    def __init__(self, found: Found, options: Options, layout: Layout) -> None:
        warm(["trace.dictionary", "importing.times", "importing.field_log", "importing.field_targets"])
        super().__init__(
            found, options, columns=field_spec.FIELD_COLUMNS, state_words=field_spec.FIELD_STATE_WORDS
        )
        self._options = options
        self._clock = Clock(units.parse_zone(options.time_zone or "UTC"))
        self._spans = np.empty((field_spec.ROLES, 2), dtype=np.int64)
        self._gaps = np.zeros((json_cut.GAPS_MAX, json_cut.GAP_WORDS), dtype=np.int64)
        self._gap_text = np.empty(json_cut.GAPS_MAX * json_cut.GAP_BYTES_MAX, dtype=np.uint8)
        self._number = np.empty(3, dtype=np.int64)
        self._state[scan.METHODS] = 0
        self.use(layout)

    def use(self, layout: Layout) -> None:
        """Use this layout for the lines that follow."""
        self.layout = layout
        self._gaps[:] = 0
        constant = layout.method.encode("ascii")
        if constant and not self._state[scan.METHODS]:
            words = np.frombuffer(constant.ljust(scan.METHOD_BYTES_MAX, b"\0"), dtype=np.int64)
            self._method_words[0], self._state[scan.METHODS] = words, 1
        self._roles = layout.roles
        self._spec = layout.spec()
        self._constant = np.frombuffer(bytearray(layout.path.encode("ascii")), dtype=np.uint8)

    @property
    def stamp(self) -> Stamp:
        """Whether the layout's timestamps are the start or the end of a request, or unknown."""
        return self.layout.stamp

    @property
    def subtracts(self) -> bool:
        """Whether the layout has end timestamps and durations, from which the start is computed."""
        return self.layout.subtracts

    def probe(self, head: bytes) -> Probe:
        """Return the first timestamp in the head and the resolution, and determine the unit of bare numbers."""
        return self._probe(head if head.endswith(b"\n") else head + b"\n")

    def _probe(self, lines: bytes) -> Probe:
        """Scan lines for their timestamps, and determine the unit of bare numbers from the largest of them."""
        data = np.frombuffer(bytearray(lines) + bytearray(8), dtype=np.uint8)
        kept = self._state.copy()
        self._state[scan.POSITION], self._state[scan.ALL_THERE] = 0, 1
        self._state[scan.ZONES] = self._state[field_spec.FINEST_NS] = 0
        self._scan(data, len(lines))
        state, self._state = self._state, kept
        self._method_words[int(kept[scan.METHODS]) :] = 0
        count = int(state[scan.ROWS])
        stamps = self._columns[field_spec.AT_NS, :count]
        zoned = self._columns[field_spec.ZONED, :1]
        first = int(self._clock.first(int(stamps[0])) if not zoned[0] else stamps[0]) if count else None
        if state[field_spec.LARGEST]:
            self._settle_unit(int(state[field_spec.LARGEST]))
        return Probe(first, max(1, int(state[field_spec.FINEST_NS])))

    def _settle_unit(self, largest: int) -> None:
        """Set the unit of numbers since the epoch, judged by the largest of them in the head.

        Also sets the limit below which a number is too small to be a time.
        """
        unit_ns = self.layout.at_unit_ns or int(times.unit_of(largest))
        least_ns = _POSSIBLE_FROM_NS if largest * unit_ns >= _LIKELY_FROM_NS else 0
        self._suppose_unit(unit_ns, near_1970=not least_ns)
        if (unit_ns, least_ns) != (self.layout.at_unit_ns, self.layout.stamp_min_ns):
            self.use(dataclasses.replace(self.layout, at_unit_ns=unit_ns, stamp_min_ns=least_ns))

    def _suppose_unit(self, unit_ns: int, *, near_1970: bool) -> None:
        """Add an assumption about the unit of numbers, in subclasses whose format does not define it."""

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of one file, block by block."""
        self._clock.begin_file()
        yield from super().read(file)

    def _scan(self, block: Bytes, end: int) -> None:
        scratch = field_spec.Scratch(self._spans, self._gaps, self._gap_text, self._number)
        kernels.scan_fields(block, end, self._spec, self._scanner(), scratch)

    def _rows(self, block: Bytes) -> Rows:
        columns, state = self._columns, self._state
        self._assume_constants()
        count = int(state[scan.ROWS])
        named = field_targets.write_field_targets(
            block,
            columns,
            count,
            self.layout.escapes,
            self._constant,
            self._secrets(),
            self._targets_out(),
        )
        data, offsets = self._cleaned(columns, count)
        self._name_methods()
        return Rows(
            at_ns=self._local(columns[field_spec.AT_NS, :count], columns[field_spec.ZONED, :count]),
            data=data,
            offsets=offsets,
            method=columns[scan.METHOD, :count],
            host=np.append(self._host_indexes(named), -1)[columns[field_spec.HOST_NUMBER, :count]],
            client_hash=columns[scan.CLIENT, :count],
            status=columns[scan.STATUS, :count],
            took_ns=columns[field_spec.TOOK_NS, :count],
            bytes=columns[scan.BYTES, :count],
        )

    def _assume_constants(self) -> None:
        """Report the method and the path that all rows get because the lines have none."""
        given = dict(self._options.columns)
        for name, value in (("method", self.layout.method), ("path", self.layout.path)):
            if value and name not in given:
                hint = f" (--columns {name}={name.upper()} sets another)" if self.takes_columns else ""
                self._found.assume(f"the recording names no {name}: {value} is taken{hint}")

    def _local(self, stamps: Int64s, zoned: Int64s) -> Int64s:
        """Convert timestamps without a zone to instants, in the zone of the options, or in UTC."""
        zoneless = np.flatnonzero(zoned == 0)
        if not len(zoneless):
            return stamps.copy()
        found = stamps.copy()
        local = stamps if len(zoneless) == len(stamps) else stamps[zoneless]
        found[zoneless], repeated, skipped = self._clock.instants(local)
        if not self.zone_known:
            self._found.count_moments("zoneless", len(zoneless))
            self._found.count_moments("repeated", repeated)
            self._found.count_moments("skipped", skipped)
            self._found.time_zone = self._options.time_zone or self._found.time_zone
        return found

    def _method_name(self, name: str) -> str:
        """Return a common method in capitals if it is in lower case in a column of its own.

        Programs log methods in lower case, but send them in capitals. A method in a request line keeps its case.
        """
        if name not in _SMALL_METHODS or field_spec.REQUEST in self._roles:
            return name
        self._found.assume(f"methods are in small letters: {name} is taken for {name.upper()}")
        return name.upper()

    def _note_file(self) -> None:
        super()._note_file()
        for word, name in _UNKNOWN.items():
            self._found.count_unknown(name, int(self._state[word]))
            self._state[word] = 0
