"""Converts rows from the lanes' rings to the columns of `replay.results.answers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from replay.results.answers import FORMS, SCHEMA
from replay.trace.importing.secrets import REDACTED
from replay_native.keeping import responses
from replay_native.keeping.ring import HAS_BODY, IS_CONTAINER, IS_CUT, IS_JSON, IS_PACKED, IS_WANTED, Drained

from .decoding import Decoder, TooLargeError
from .redaction import hides_header, redact_header, redact_json, redact_text

NONE, JSON, TEXT, HTML, BINARY, UNREADABLE = (np.uint8(FORMS.index(form)) for form in FORMS)

_TEXT_TYPES = frozenset(
    {
        "application/javascript",
        "application/x-javascript",
        "application/x-www-form-urlencoded",
        "application/graphql",
    }
)
_HEADERS = SCHEMA.field("headers").type
_ITEM = _HEADERS.value_type
HIDDEN = REDACTED.encode()


@lru_cache(4_096)
def media_type(value: bytes) -> str:
    """Return the media type of a Content-Type, in lower case and without parameters."""
    return value.partition(b";")[0].strip().lower().decode("latin-1")


@lru_cache(4_096)
def form_of_type(name: str) -> np.uint8:
    """Return the kind of a body by its media type, which is used if the body is not JSON."""
    if name in ("text/html", "application/xhtml+xml"):
        return HTML
    if name.startswith("text/") or name.endswith(("xml", "json")) or name in _TEXT_TYPES:
        return TEXT
    return BINARY


def is_json_type(name: str) -> bool:
    """Return whether a media type is JSON."""
    return name.endswith("json")


@dataclass
class Counts:
    """Counts of kept responses. `lost` is by reason, without the losses that the rings count themselves."""

    kept: int = 0
    bodies: int = 0
    cut: int = 0
    redacted: int = 0
    lost: dict[str, int] = field(default_factory=dict)

    def stored(self) -> tuple[int, int, int]:
        """Return the counts that become final when the rows are stored."""
        return self.bodies, self.cut, self.redacted

    def restore(self, stored: tuple[int, int, int]) -> None:
        """Undo the counts of the last batch, which could not be stored."""
        self.bodies, self.cut, self.redacted = stored

    def lose(self, reason: str, count: int = 1) -> None:
        """Count lost responses for a reason."""
        if count:
            self.lost[reason] = self.lost.get(reason, 0) + count


class Names(NamedTuple):
    """A column of texts: the index of each row's text in `words`."""

    numbers: npt.NDArray[np.int32]
    words: list[str]

    def array(self) -> pa.Array:
        """Return the column as an Arrow array."""
        return pa.DictionaryArray.from_arrays(self.numbers, pa.array(self.words, pa.utf8()))


def _words(ends: npt.NDArray[np.int32], data: npt.NDArray[np.uint8], named: Callable[[bytes], str]) -> Names:
    """Convert a column of texts to indices; `named` is called once for each distinct text."""
    texts = pa.Array.from_buffers(
        pa.binary(), len(ends) - 1, [None, pa.py_buffer(ends), pa.py_buffer(data)]
    ).dictionary_encode()
    words: dict[str, int] = {}
    numbers = [words.setdefault(named(text), len(words)) for text in texts.dictionary.to_pylist()]
    index = (
        np.asarray(numbers or [0], np.int32)[texts.indices.to_numpy()]
        if len(ends) > 1
        else np.zeros(0, np.int32)
    )
    return Names(index, list(words))


@lru_cache(4_096)
def _coding(value: bytes) -> str:
    return value.strip().lower().decode("latin-1") or "identity"


class Columns:
    """Converts drained rows to columns, and counts what was kept and lost."""

    def __init__(
        self, scratch: responses.Keeping, headers: Sequence[str], body_limit: int, *, keep_secrets: bool
    ) -> None:
        """Prepare the conversion. `scratch` is memory in which decoded bodies are digested."""
        self.counts = Counts()
        self._scratch, self._found = scratch, np.zeros(3, np.uint64)
        self._names = pa.array([name.lower() for name in headers], pa.utf8())
        self._hidden = np.array([hides_header(name) for name in headers] or [False], np.bool_)
        self._body_limit, self._keep_secrets = body_limit, keep_secrets
        self._decoder: Decoder | None = None

    def of(self, drained: Drained, count: int) -> dict[str, Any]:
        """Return the columns of the first `count` rows, except their numbers and due times.

        The columns share memory with `drained`.
        """
        types = _words(drained.type_ends[: count + 1], drained.types, media_type)
        codings = _words(drained.encoding_ends[: count + 1], drained.encodings, _coding)
        rows = _Rows(drained, count, types, codings)
        self._decode_packed(rows)
        return {
            "client": drained.client[:count],
            "route": drained.route[:count],
            "status": drained.status[:count],
            "type": types.array(),
            "encoding": codings.array(),
            "length": drained.length[:count],
            "form": rows.form,
            "digest": rows.digest,
            "headers": self._headers(drained, count),
            **self._bodies(rows),
        }

    def _decode_packed(self, rows: _Rows) -> None:
        """Decode the bodies that have a content coding, and digest them.

        Bodies that are cut or too large, or cannot be decoded, are UNREADABLE, and counted as lost.
        """
        for row in np.flatnonzero((rows.flags & IS_PACKED != 0) & (rows.form != NONE)).tolist():
            rows.form[row], rows.digest[row] = UNREADABLE, 0
            if not rows.flags[row] & HAS_BODY:
                continue
            if rows.flags[row] & IS_CUT:
                self.counts.lose("too_large")
                continue
            self._decoder = self._decoder or Decoder()
            try:
                body = self._decoder.decode(rows.raw_body(row), rows.coding(row))
            except TooLargeError:
                self.counts.lose("too_large")
                continue
            except ValueError:
                self.counts.lose("undecodable")
                continue
            responses.digest_whole(self._scratch, np.frombuffer(bytearray(body), np.uint8), self._found)
            rows.decoded[row] = body
            rows.judge(row, int(self._found[0]), int(self._found[1]), int(self._found[2]), len(body))

    def _headers(self, drained: Drained, count: int) -> pa.Array:
        ends = drained.row_headers[: count + 1]
        headers = int(ends[-1])
        names, value_ends = drained.names[:headers], drained.header_ends[: headers + 1]
        values = pa.Array.from_buffers(
            pa.binary(), headers, [None, pa.py_buffer(value_ends), pa.py_buffer(drained.headers)]
        )
        if not self._keep_secrets:
            values = self._redacted_values(values, names)
        items = pa.StructArray.from_arrays(
            [self._names.take(pa.array(names)), values], fields=[_ITEM.field(0), _ITEM.field(1)]
        )
        return pa.ListArray.from_arrays(pa.array(ends), items, type=_HEADERS)

    def _redacted_values(self, values: pa.Array, names: npt.NDArray[np.int8]) -> pa.Array:
        """Return the values without secrets. Each distinct value is examined once."""
        if not len(values):
            return values
        different = values.dictionary_encode()
        cleaned = [redact_header(value) for value in different.dictionary.to_pylist()]
        values = pa.array(cleaned, pa.binary()).take(different.indices)
        hidden = self._hidden[names]
        return pc.if_else(pa.array(hidden), pa.scalar(HIDDEN), values) if hidden.any() else values

    def _bodies(self, rows: _Rows) -> dict[str, Any]:
        """Return the columns `body` and `cut`; `body` is None if no body is kept."""
        cut = np.zeros(rows.count, np.bool_)
        wanted = np.flatnonzero((rows.flags & IS_WANTED != 0) & (rows.form != NONE)).tolist()
        bodies: list[bytes | None] = [None] * rows.count
        kept = False
        for row in wanted:
            body = rows.decoded.get(row)
            if body is None:
                if rows.form[row] == UNREADABLE or not rows.flags[row] & HAS_BODY:
                    continue
                body, cut[row] = rows.raw_body(row), bool(rows.flags[row] & IS_CUT)
            elif len(body) > self._body_limit:
                body, cut[row] = body[: self._body_limit], True
            bodies[row] = body if self._keep_secrets else self._redacted(body, int(rows.form[row]))
            kept = True
            self.counts.bodies += 1
        self.counts.cut += int(cut.sum())
        return {"body": pa.array(bodies, pa.binary()) if kept else None, "cut": cut}

    def _redacted(self, body: bytes, form: int) -> bytes:
        clean = body
        if form == JSON:
            clean = redact_json(body)
        elif form in (TEXT, HTML):
            clean = redact_text(body)
        self.counts.redacted += clean is not body and clean != body
        return clean


class _Rows:
    """Drained rows, and the results of decoding their bodies."""

    def __init__(self, drained: Drained, count: int, types: Names, codings: Names) -> None:
        self.count = count
        self.flags = drained.flags[:count]
        self.decoded: dict[int, bytes] = {}
        self._bodies, self._body_ends = drained.bodies, drained.body_ends
        self._codings = codings
        by_type = np.array([form_of_type(word) for word in types.words] or [BINARY], np.uint8)
        says_json = np.array([is_json_type(word) for word in types.words] or [False], np.bool_)
        self._of_type, self._says_json = by_type[types.numbers], says_json[types.numbers]
        is_json = (self.flags & IS_JSON != 0) & ((self.flags & IS_CONTAINER != 0) | self._says_json)
        self.form = np.where(is_json, JSON, self._of_type).astype(np.uint8)
        self.form[drained.length[:count] == 0] = NONE
        self.digest = np.where(self.form == JSON, drained.of_json[:count], drained.of_bytes[:count])

    def coding(self, row: int) -> str:
        """Return the content coding of a row."""
        return self._codings.words[int(self._codings.numbers[row])]

    def raw_body(self, row: int) -> bytes:
        """Return the body of a row as it was received, before decoding."""
        body: bytes = self._bodies[self._body_ends[row] : self._body_ends[row + 1]].tobytes()
        return body

    def judge(self, row: int, flags: int, of_json: int, of_bytes: int, length: int) -> None:
        """Record the form and the digest of a decoded body."""
        if flags & IS_JSON and (flags & IS_CONTAINER or self._says_json[row]):
            self.form[row], self.digest[row] = JSON, of_json
        else:
            self.form[row], self.digest[row] = self._of_type[row] if length else NONE, of_bytes
