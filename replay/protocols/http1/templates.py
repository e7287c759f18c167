"""Texts that contain values: bodies, paths and headers, split into the parts that the render kernel joins."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import InputError, UsageError, reason_of
from replay.files import read_whole
from replay.settings.session_rules import Variable
from replay_native.http1 import render as kernels
from replay_native.http1.sessions import (
    ENCODED_BYTES,
    FORM,
    IN_COOKIE,
    JSON_TEXT,
    JSON_VALUE,
    RAW,
    SEGMENT,
    TARGET,
)
from replay_native.templates.text import (
    CLIENT,
    EMAIL,
    EMAIL_BYTES,
    LITERAL,
    NUMBER,
    UUID,
    UUID_BYTES,
    WORD_BYTES,
)

FIXED_BYTES = {
    UUID: UUID_BYTES, EMAIL: EMAIL_BYTES, kernels.WORD: WORD_BYTES, kernels.CLIENT_UUID: UUID_BYTES,
    kernels.CLIENT_EMAIL: EMAIL_BYTES, kernels.CLIENT_WORD: WORD_BYTES,
}  # fmt: skip

CSV_BYTES_MAX = 1 << 30
"""The largest file of columns that is read, in bytes."""

CSV_ROWS_MAX = 10_000_000

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_PLACEHOLDER = re.compile(rb"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BUILT_IN = {
    b"uuid": UUID, b"email": EMAIL, b"client": CLIENT, b"n": NUMBER,
}  # fmt: skip
_BY_REQUEST = {"uuid": UUID, "email": EMAIL, "word": kernels.WORD}
_BY_CLIENT = {
    "uuid": kernels.CLIENT_UUID, "email": kernels.CLIENT_EMAIL, "word": kernels.CLIENT_WORD, "like": kernels.CLIENT_LIKE,
}  # fmt: skip


class Part(NamedTuple):
    """A part of a template, of a kind that the kernel defines.

    `text` has the bytes of a literal. `number` is the index of a column, or the slot and encoding of a captured
    value. `salt` changes the seed of generated values; with `each_run` the run's id changes it, too.
    """

    kind: int
    text: bytes = b""
    number: int = 0
    salt: int = 0
    each_run: bool = False


Encode = Literal["raw", "json", "target", "form", "segment", "json_value", "cookie"]
"""How a value is encoded: one of the encodings of `replay_native.http1.sessions`."""

ENCODINGS: dict[Encode, int] = {
    "raw": RAW, "json": JSON_TEXT, "target": TARGET, "form": FORM, "segment": SEGMENT, "json_value": JSON_VALUE,
    "cookie": IN_COOKIE,
}  # fmt: skip

_JSON_LITERAL = re.compile(rb"null|true|false|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*("|\Z)', re.DOTALL)


class Template(NamedTuple):
    """A text split into parts. `content_type` is set for bodies."""

    parts: tuple[Part, ...]
    content_type: str = ""

    @property
    def fixed_bytes(self) -> int:
        """Total size of the parts whose length is known beforehand."""
        return sum(FIXED_BYTES.get(part.kind, len(part.text)) for part in self.parts)

    @property
    def patches(self) -> int:
        """The number of values that the lane fills in."""
        return sum(part.kind == kernels.CAPTURED for part in self.parts)


class Patches(NamedTuple):
    """Templates of single requests: recorded bodies, paths and headers with values in some places.

    The arrays have the template of each request of the trace, or -1; they are empty if no request has one.
    """

    bodies: tuple[Template, ...] = ()
    paths: tuple[Template, ...] = ()
    heads: tuple[Template, ...] = ()
    request_body: npt.NDArray[np.int32] = np.empty(0, np.int32)
    request_path: npt.NDArray[np.int32] = np.empty(0, np.int32)
    request_head: npt.NDArray[np.int32] = np.empty(0, np.int32)


NO_PATCHES = Patches()


def encoded(value: bytes, encode: Encode) -> bytes:
    """Encode a value for its place in a request. This is the Python twin of the lane's encoder."""
    if encode == "segment" and value in (b".", b".."):
        return b"%2E" * len(value)
    if encode == "json_value":
        return value if _JSON_LITERAL.fullmatch(value) else b'"' + encoded(value, "json") + b'"'
    sizes = ENCODED_BYTES[ENCODINGS[encode]]
    pieces = {
        1: lambda byte: bytes((byte,)),
        2: lambda byte: b"\\" + bytes((byte,)),
        3: lambda byte: b"%%%02X" % byte,
    }
    return b"".join(pieces[int(sizes[byte])](byte) for byte in value)


def encoding_of_body(content_type: str) -> Encode:
    """Return how values are encoded in a body of this type."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith("json"):
        return "json"
    return "form" if kind == "application/x-www-form-urlencoded" else "raw"


class Values:
    """Resolves the names in templates: variables, and the slots of captured values.

    The column of a variable's file is read once, and encoded for each kind of place. The captured values in
    `links` are whole paths.
    """

    def __init__(
        self,
        variables: Sequence[Variable],
        slots: Mapping[str, int] | None = None,
        links: Collection[str] = (),
    ) -> None:
        self._slots = {name.encode(): slot for name, slot in (slots or {}).items()}
        self._links = {name.encode() for name in links}
        self._variables = {variable.name.encode(): variable for variable in variables}
        self._read: dict[bytes, list[bytes]] = {}
        self._columns: dict[tuple[bytes, Encode], int] = {}
        self._cells: list[list[bytes]] = []
        self.recorded: bytes | None = None
        """The recorded value that the text being parsed replaces."""

    def part(self, name: bytes, encode: Encode) -> Part | None:
        """Return the part for a name; None if the name is literal text."""
        if name in _BUILT_IN:
            return Part(_BUILT_IN[name])
        if name in self._slots:
            if encode == "segment" and name in self._links:
                encode = "target"
            return Part(kernels.CAPTURED, number=self._slots[name] | ENCODINGS[encode] << 16)
        variable = self._variables.get(name)
        if variable is None:
            return None
        if variable.generate is not None:
            return self._generated(variable)
        if variable.env is not None:
            return Part(LITERAL, encoded(given_value(variable), encode))
        by_client = variable.by == "client"
        kind = kernels.COLUMN_BY_CLIENT if by_client else kernels.COLUMN_BY_REQUEST
        return Part(kind, number=self._column(name, encode))

    def has_by_value(self, text: str) -> bool:
        """Return whether a text contains a variable whose value depends on the recorded one."""
        names = (match[1] for match in _PLACEHOLDER.finditer(text.encode()))
        return any(name in self._variables and self._variables[name].by == "value" for name in names)

    def _generated(self, variable: Variable) -> Part:
        """Return the part of a generated value. UsageError if it depends on a recorded value, and there is none."""
        kinds = _BY_REQUEST if variable.by == "request" else _BY_CLIENT
        kind, salt, text = kinds[variable.generate or ""], 0, b""
        if variable.by == "value":
            if self.recorded is None:
                raise UsageError(
                    f'the variable {variable.name} has by = "value", but there is no recorded value in its place',
                    hint="use it in a [[set]] rule with json, form, query or path",
                )
            salt, text = _hash_of(variable.name.encode(), self.recorded), self.recorded
        if variable.each_run:
            salt ^= _hash_of(b"run", variable.name.encode())
        return Part(kind, text if variable.generate == "like" else b"", salt=salt, each_run=variable.each_run)

    def _column(self, name: bytes, encode: Encode) -> int:
        if (name, encode) not in self._columns:
            if name not in self._read:
                self._read[name] = read_column(self._variables[name])
            self._columns[name, encode] = len(self._cells)
            self._cells.append([encoded(cell, encode) for cell in self._read[name]])
        return self._columns[name, encode]

    @property
    def longest_bytes(self) -> int:
        """Size of the longest cell in bytes."""
        return max((len(cell) for cells in self._cells for cell in cells), default=0)

    def arrays(self) -> Mapping[str, npt.NDArray[np.generic]]:
        """Return the columns in the form that the render kernel needs."""
        cells = [cell for column in self._cells for cell in column]
        return {
            "column_rows": np.cumsum([0, *map(len, self._cells)]).astype(np.int64),
            "cell_ends": np.cumsum([0, *map(len, cells)]).astype(np.int64),
            "cells": np.frombuffer(bytearray(b"".join(cells)), np.uint8),
        }


def _hash_of(*texts: bytes) -> int:
    """Return 64 bits of a hash of the texts."""
    return int.from_bytes(hashlib.blake2b(b"\0".join(texts), digest_size=8).digest(), "big")


def given_value(variable: Variable) -> bytes:
    """Return the value that the user gives for a variable. UsageError if it is not set, or cannot be sent."""
    text = os.environ.get(variable.env or "")
    if text is None:
        raise UsageError(
            f"the variable {variable.name} is not set",
            hint=f"export {variable.env}, or give --set {variable.name}=VALUE",
        )
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise UsageError(f"the variable {variable.name} ({variable.env}) contains a control character")
    return text.encode("utf-8", "surrogateescape")


def read_column(variable: Variable) -> list[bytes]:
    """Read the cells of a variable's column. InputError if the file or a cell cannot be used."""
    name = variable.column or variable.name
    path = Path(variable.file or "")
    try:
        text = read_whole(path, CSV_BYTES_MAX).decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        if name not in (names := rows.fieldnames or ()):
            guess = units.nearest(name, names)
            raise InputError(
                f"{path}, line 1: there is no column {name!r}"
                + (f" (did you mean {guess!r}?)" if guess else ""),
                hint=f"columns: {', '.join(names)}" if names else "its first line names the columns",
            )
        return _cells(rows, name, path)
    except OSError as error:
        raise InputError(
            f"the variable {variable.name}: {path}: {reason_of(error)}",
            hint="give the file of this [[variable]]",
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file: {error}") from None


def _cells(rows: csv.DictReader[str], name: str, path: Path) -> list[bytes]:
    cells = []
    for row in rows:
        cell = row[name]
        if cell is None:
            raise InputError(f"{path}, line {rows.line_num}: the column {name} is missing")
        if any(ord(character) < 32 or ord(character) == 127 for character in cell):
            raise InputError(f"{path}, line {rows.line_num}: the column {name} holds a control character")
        cells.append(cell.encode())
        if len(cells) > CSV_ROWS_MAX:
            raise InputError(f"{path} has more than {CSV_ROWS_MAX:,} rows")
    if not cells:
        raise InputError(f"{path} holds no rows: there is nothing to send")
    return cells


def parse_template(
    body: bytes, values: Values | None = None, encode: Encode = "raw", *, fill: bool = True
) -> tuple[Part, ...]:
    """Split a text at the names in braces. Any other brace is literal text; without `fill`, the whole text is."""
    values = values or Values(())
    parts: list[Part] = []
    at = 0
    strings = [match.span() for match in _JSON_STRING.finditer(body)] if encode == "json" else []
    for match in _PLACEHOLDER.finditer(body) if fill else ():
        inside = any(begin < match.start() < end for begin, end in strings)
        part = values.part(match[1], "json_value" if encode == "json" and not inside else encode)
        if part is None:
            continue
        if match.start() > at:
            parts.append(Part(LITERAL, body[at : match.start()]))
        parts.append(part)
        at = match.end()
    if at < len(body):
        parts.append(Part(LITERAL, body[at:]))
    return merged(parts)


def parse_path(path: str, values: Values) -> tuple[Part, ...]:
    """Split a path at its names.

    A value is encoded so that it stays one path segment, or one value of the query. Only a captured link may be more.
    """
    before, mark, query = path.encode("ascii").partition(b"?")
    return merged([*parse_template(before, values, "segment"), *parse_template(mark + query, values, "form")])


def is_generated_text(part: Part, recorded: bytes) -> bool:
    """Return whether a part is generated, and is not a number in place of the number `recorded`."""
    if part.kind == kernels.CLIENT_LIKE:
        return _NUMBER.fullmatch(recorded) is None
    return part.kind in FIXED_BYTES


def is_link(part: Part) -> bool:
    """Return whether a part is a captured link, which may have its own query."""
    return part.kind == kernels.CAPTURED and part.number >> 16 == TARGET


def merged(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Join adjacent literals."""
    result: list[Part] = []
    for part in parts:
        if result and part.kind == result[-1].kind == LITERAL:
            result[-1] = Part(LITERAL, result[-1].text + part.text)
        else:
            result.append(part)
    return tuple(result)
