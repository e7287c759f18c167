"""Describes lines for the field scanner: which field has which role.

A layout is one of these: a template (`$client - $user [$at] "$request" $status`), a delimiter with the roles of its
columns, the paths of JSON keys, or a delimiter with keys (`key=value` pairs).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from replay.errors import UsageError
from replay.trace.dictionary import flatten
from replay.trace.manifest import Stamp
from replay_native.importing import field_spec

ROLES = {
    "at": field_spec.AT,
    "end": field_spec.AT,
    "time": field_spec.AT_MORE,
    "request": field_spec.REQUEST,
    "method": field_spec.METHOD_NAME,
    "path": field_spec.TARGET,
    "query": field_spec.QUERY,
    "host": field_spec.HOST,
    "client": field_spec.CLIENT_NAME,
    "forwarded": field_spec.FORWARDED,
    "status": field_spec.STATUS_CODE,
    "bytes": field_spec.SIZE,
    "agent": field_spec.AGENT,
}
"""The roles of columns.

`end` is the time at which a request ended. `time` is the time of day if `at` is a date. `forwarded` is an
`X-Forwarded-For`, whose first address is the client.
"""

UNITS_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""The units that may follow a role: `took_ms` is a duration in ms, `at_ms` and `end_ms` are ms since the epoch."""

_TOKEN = re.compile(r"\$(\w+)")
_STAMP = re.compile(
    r"\d\d/[A-Z][a-z]{2}/\d{4}[: ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: [+-]\d{4})?"
    r"|\d{4}(?:-\d\d-|/\d\d/)\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?(?:Z|UTC|[+-]\d\d(?::?\d\d)?))?|\d+(?:\.\d+)?"
)
_ZONE_FOLLOWS, _TIME_FOLLOWS, _DAY = (re.compile(form) for form in (r" [+-]\d{4}", r" ..:...", r".{4}-.{5}"))
_LOOKS = {
    field_spec.AT: _STAMP,
    field_spec.STATUS_CODE: re.compile(r"\d{3}|0|-1?|"),
    field_spec.SIZE: re.compile(r"\+?\d+|-1?|"),
    **dict.fromkeys(
        (field_spec.TOOK, field_spec.TOOK_2, field_spec.TOOK_3),
        re.compile(r"[+-]?[\d.]+(?:s|ms|us|µs|ns)?|-|"),
    ),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """A format for the field scanner.

    One of these is given: `pieces` (a template), `columns` (roles of a delimited line), or `keys` (JSON paths to
    roles; with a delimiter, keys of pairs). With `subtracts`, a request's start is its timestamp minus its duration.
    With a `took_unit_ns` of 0, a duration without a unit is unknown. `decimal`, `padded` and `stamp_min_ns` are options of
    `field_spec`.
    """

    stamp: Stamp = "start"
    subtracts: bool = False
    escapes: int = field_spec.PLAIN
    pieces: tuple[tuple[str, int], ...] = ()
    columns: tuple[int, ...] = ()
    delimiter: str = ""
    keys: Mapping[str, int] = field(default_factory=dict)
    took_unit_ns: int = UNITS_NS["s"]
    at_unit_ns: int = 0
    method: str = ""
    path: str = ""
    status: int = -1
    ported: bool = False
    comment: str = ""
    decimal: str = "."
    padded: bool = True
    stamp_min_ns: int = 0

    @property
    def roles(self) -> frozenset[int]:
        """The roles of all fields."""
        return frozenset((*(role for _, role in self.pieces), *self.columns, *self.keys.values()))

    def spec(self) -> field_spec.FieldSpec:
        """Return the layout in the form that the kernels take."""
        cutter = (
            field_spec.TEMPLATE
            if self.pieces
            else field_spec.PAIRS
            if self.delimiter and self.keys
            else field_spec.DELIMITED
            if self.delimiter
            else field_spec.JSON
        )
        options = np.zeros(field_spec.OPTIONS, np.int64)
        options[field_spec.CUTTER] = cutter
        options[field_spec.DELIMITER] = ord(self.delimiter or "\0")
        options[field_spec.ESCAPES] = self.escapes
        options[field_spec.TOOK_UNIT_NS] = self.took_unit_ns
        options[field_spec.AT_UNIT_NS] = self.at_unit_ns
        options[field_spec.CONSTANT_METHOD] = 0 if self.method else -1
        options[field_spec.CONSTANT_TARGET] = bool(self.path)
        options[field_spec.CONSTANT_STATUS] = self.status
        options[field_spec.PORTED] = self.ported
        options[field_spec.DECIMAL] = ord(self.decimal)
        options[field_spec.PADDED] = self.padded
        options[field_spec.STAMP_MIN_NS] = self.stamp_min_ns
        options[field_spec.COMMENT] = ord(self.comment) if self.comment else -1
        roles = self.columns if self.delimiter else [role for _, role in self.pieces[1:]]
        literals, literal_ends = flatten(_literals(self.pieces))
        keys, key_ends, first, nodes, key_roles, parents = _trie(self.keys)
        return field_spec.FieldSpec(
            options, literals, literal_ends, np.array(roles, np.int64), keys, key_ends, first, nodes, key_roles,
            parents,
        )  # fmt: skip

    def looks_like(self, line: str) -> bool:
        """Return whether a line matches the template, including the forms of its time, status, size and durations."""
        begins = self.pieces[0][0]
        if not line.startswith(begins):
            return False
        at = len(begins)
        for field_ in _fields_of(self.pieces, self.padded):
            while field_.padded and line.startswith(" ", at):
                at += 1
            last = field_.end(line, at)
            if last < 0:
                return False
            if field_.looks is not None:
                text = line[at:last]
                if field_.looks.fullmatch(text.rstrip(" ") if field_.padded else text) is None:
                    return False
            at = last + len(field_.literal)
        return True


class _Field(NamedTuple):
    """A field of a template, and the literal after it.

    `looks` is the form of its text, None if it may be anything.
    """

    literal: str
    role: int
    quoted: bool
    padded: bool
    looks: re.Pattern[str] | None

    def end(self, line: str, at: int) -> int:
        """Return where the field that begins at `at` ends, or -1."""
        if not self.literal:
            return len(line)
        last = self._literal_from(line, at)
        if last >= 0 and self.role == field_spec.AT and _stamp_goes_on(line, at, last):
            return self._literal_from(line, last + 1)
        return last

    def _literal_from(self, line: str, at: int) -> int:
        """Return the first position of the literal from `at` on, or -1.

        If the field is quoted, an escaped literal is skipped.
        """
        at = line.find(self.literal, at)
        while self.quoted and at > 0 and line[at - 1] == "\\" and _is_escaped(line, at):
            at = line.find(self.literal, at + 1)
        return at


@functools.lru_cache
def _fields_of(pieces: tuple[tuple[str, int], ...], padded: bool) -> tuple[_Field, ...]:
    """Return the fields of a template."""
    opened = [literal.endswith('"') for literal, _ in pieces[:-1]]
    return tuple(
        _Field(literal, role, quoted, padded and not quoted, _LOOKS.get(role))
        for quoted, (literal, role) in zip(opened, pieces[1:], strict=True)
    )


def _is_escaped(line: str, at: int) -> bool:
    """Return whether an odd number of backslashes precedes a character."""
    before = line[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1


def _stamp_goes_on(line: str, begin: int, end: int) -> bool:
    """Return whether the space at `end` belongs to a timestamp, because a time or a zone follows it."""
    if line[end] != " ":
        return False
    return bool(
        _ZONE_FOLLOWS.match(line, end)
        or (_DAY.fullmatch(line, begin, end) and _TIME_FOLLOWS.match(line, end))
    )


def _literals(pieces: Sequence[tuple[str, int]]) -> list[bytes]:
    return [literal.encode() for literal, _ in pieces]


def _trie(keys: Mapping[str, int]) -> tuple[np.ndarray, ...]:
    """Convert paths to a tree.

    Returns the keys of each node, the target node and role of each key, and the parent of each node. A key that
    contains a dot is also matched literally.
    """
    nodes: list[dict[str, list[int]]] = [{}]
    parents_of = [-1]
    for path, role in keys.items():
        nodes[0].setdefault(path, [-1, -1])[1] = role
        at = 0
        *parents, last = path.split(".")
        for parent in parents:
            entry = nodes[at].setdefault(parent, [-1, -1])
            if entry[0] < 0:
                entry[0] = len(nodes)
                nodes.append({})
                parents_of.append(at)
            at = entry[0]
        nodes[at].setdefault(last, [-1, -1])[1] = role
    data, ends = flatten([key.encode() for node in nodes for key in node])
    first = np.cumsum([0, *(len(node) for node in nodes)], dtype=np.int64)
    entries = np.array([entry for node in nodes for entry in node.values()], np.int64).reshape(-1, 2)
    of_node = np.array(parents_of, np.int64)
    return (
        data,
        ends,
        first,
        np.ascontiguousarray(entries[:, 0]),
        np.ascontiguousarray(entries[:, 1]),
        of_node,
    )


_ESCAPED = re.compile(r"\\([trn'\"\\])")


def without_escapes(text: str) -> str:
    r"""Replace the escapes of a server's configuration in a format string: \t, \r, \n, quotes and backslashes."""
    return _ESCAPED.sub(lambda found: {"t": "\t", "r": "\r", "n": "\n"}.get(found[1], found[1]), text)


def template(text: str, roles: Mapping[str, int], **more: object) -> Layout:
    """Return the layout of `literal $field literal ...`, up to the last field whose name has a role.

    Raises UsageError if two fields are adjacent.
    """
    parts = _TOKEN.split(text)
    return of_parts(parts[0::2], [roles.get(name, -1) for name in parts[1::2]], parts[1::2], **more)


def of_parts(literals: Sequence[str], roles: list[int], names: Sequence[str], **more: object) -> Layout:
    """Return the layout of alternating literals and fields.

    If several fields have one role, the first gets it. Raises UsageError if two fields are adjacent.
    """
    roles = [role if role not in roles[:index] else -1 for index, role in enumerate(roles)]
    kept = max((index for index, role in enumerate(roles) if role >= 0), default=-1) + 1
    for index in range(1, kept):
        if not literals[index]:
            raise UsageError(
                f"the log format has nothing between {names[index - 1]} and {names[index]}",
                hint="replay cannot find where the first one ends: put a space between them in the server's configuration",
            )
    pieces = ((literals[0], -1), *((literals[index + 1], roles[index]) for index in range(kept)))
    return Layout(pieces=pieces, **more)  # type: ignore[arg-type]
