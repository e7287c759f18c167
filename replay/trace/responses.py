"""Recorded responses of a trace: a dictionary of distinct responses, of their header sets and of the kept bodies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from replay_native.ground import xxh64
from replay_native.ground.jit import warm

from .blob_writer import BlobWriter, HeaderSets
from .blobs import Blobs, open_bodies, open_file
from .blocks import corrupt
from .manifest import FileSums
from .packed_writer import PackedWriter
from .requests import HEADERS_SCHEMA, Headers

RESPONSES, RESPONSE_HEADERS, RESPONSE_BODIES = (
    "responses.arrow",
    "response-headers.arrow",
    "response-bodies.arrow",
)

MEDIA_TYPE_CHARS_MAX = 127
"""Longer media types are cut. RFC 6838 (4.2) allows 127 characters in each of the two parts; real ones are shorter."""

RESPONSES_REMEMBERED, REMEMBERED_BODY_BYTES_MAX = 1 << 12, 1 << 12
"""How many responses are cached, and the largest body of a cached one. Many events share a response."""

_ROW_BYTES = 64
"""Approximate memory in bytes that a response occupies until it is written."""

_RESPONSE = pa.struct(
    [
        pa.field("type", pa.string(), False),
        pa.field("headers", pa.int32(), False),
        pa.field("size", pa.int64(), False),
        pa.field("digest", pa.uint64(), False),
        pa.field("body", pa.int32(), False),
        pa.field("cut", pa.bool_(), False),
    ]
)
RESPONSES_SCHEMA = pa.schema([pa.field("response", _RESPONSE, False)])


@dataclass(frozen=True, slots=True)
class RecordedResponse:
    """One recorded response.

    `type` is the media type in lower case without parameters ("" if there is none). `size` is the body's size on
    the wire, without the transfer coding; -1 is unknown. `digest` is the XXH64 of those bytes; 0 is unknown. `body`
    is None if it was not kept. It has the content coding stated in `headers`; with `cut`, it is only the beginning.
    """

    type: str = ""
    headers: Headers = ()
    size: int = -1
    digest: int = 0
    body: bytes | None = None
    cut: bool = False


def media_type(headers: Headers) -> str:
    """Return the media type of the first Content-Type, in lower case and without parameters.

    It is "" if there is none, or if it is not printable ASCII.
    """
    for name, value in headers:
        if name.lower() == b"content-type" and value:
            text = value.partition(b";")[0].strip().lower()[:MEDIA_TYPE_CHARS_MAX].decode("latin-1")
            return text if text.isascii() and text.isprintable() else ""
    return ""


class BodyDigest:
    """Computes the XXH64 of a body that arrives in pieces."""

    def __init__(self) -> None:
        warm(["ground.xxh64"])
        self._state = np.zeros(xxh64.STATE_WORDS, np.uint64)
        self._tail = np.zeros(32, np.uint8)
        xxh64.begin(self._state)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next piece of the body to the digest."""
        if len(data):
            xxh64.update(self._state, self._tail, np.frombuffer(bytearray(data), np.uint8))

    @property
    def value(self) -> int:
        """Return the digest of all bytes added so far."""
        return int(xxh64.digest(self._state, self._tail))


def body_digest(body: bytes | bytearray | memoryview) -> int:
    """Return the XXH64 of a whole body."""
    digest = BodyDigest()
    digest.update(body)
    return digest.value


class Responses:
    """The distinct recorded responses of a trace, by id (column `response` of its events)."""

    def __init__(self, folder: Path, files: Mapping[str, FileSums]) -> None:
        def has(name: str) -> bool:
            return name in files if files else (folder / name).exists()

        def blobs(name: str, schema: pa.Schema) -> Blobs | None:
            return Blobs(open_file(folder / name, files.get(name)), schema) if has(name) else None

        self._path, self._known = folder / RESPONSES, dict[int, RecordedResponse]()
        self._rows = blobs(RESPONSES, RESPONSES_SCHEMA)
        self._header_sets = blobs(RESPONSE_HEADERS, HEADERS_SCHEMA)
        self._bodies = None
        if has(RESPONSE_BODIES):
            self._bodies = open_bodies(folder / RESPONSE_BODIES, files.get(RESPONSE_BODIES))

    def __len__(self) -> int:
        return len(self._rows or ())

    def get(self, index: int) -> RecordedResponse:
        """Return response `index`.

        Raises IndexError if there is none, and InputError if the trace is damaged.
        """
        known = self._known.get(index)
        if known is not None:
            return known
        if self._rows is None:
            raise IndexError(index)
        row = self._rows[index]
        found = RecordedResponse(
            type=row["type"],
            headers=self._headers(row["headers"]),
            size=row["size"],
            digest=row["digest"],
            body=self._body(row["body"], row["size"]),
            cut=row["cut"],
        )
        if len(self._known) < RESPONSES_REMEMBERED and len(found.body or b"") <= REMEMBERED_BODY_BYTES_MAX:
            self._known[index] = found
        return found

    def _headers(self, index: int) -> Headers:
        if index < 0:
            return ()
        if self._header_sets is None or index >= len(self._header_sets):
            raise corrupt(self._path, "a response refers to a header set that is not in the dictionary")
        return tuple((pair["name"], pair["value"]) for pair in self._header_sets[index])

    def _body(self, index: int, size: int) -> bytes | None:
        if index < 0:
            return b"" if size == 0 else None
        if self._bodies is None or index >= len(self._bodies):
            raise corrupt(self._path, "a response refers to a body that is not in the dictionary")
        return bytes(self._bodies[index])

    def kept(self) -> npt.NDArray[np.uint8]:
        """Return the flags of each response.

        KEPT_BODY means that a body was kept, and CUT_BODY that only its beginning was kept.
        """
        found = [np.empty(0, np.uint8)]
        for batch in self._rows.loaded_batches() if self._rows is not None else ():
            rows = batch.column(0)
            has = rows.field("body").to_numpy() >= 0
            cut = rows.field("cut").to_numpy(zero_copy_only=False)
            found.append(kept_flags(has, cut))
        return np.concatenate(found)

    def types(self) -> Iterator[tuple[list[str], npt.NDArray[np.int64]]]:
        """Yield the media types and the sizes of all responses, batch by batch, in the order of their ids."""
        for batch in self._rows.loaded_batches() if self._rows is not None else ():
            rows = batch.column(0)
            yield rows.field("type").to_pylist(), rows.field("size").to_numpy().copy()


KEPT_BODY, CUT_BODY = np.uint8(1), np.uint8(2)


def kept_flags(has: npt.NDArray[np.bool_], cut: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return the flags of `Responses.kept` for responses whose bodies are kept (`has`) and cut (`cut`)."""
    return np.where(has, KEPT_BODY + np.where(cut, CUT_BODY, np.uint8(0)), np.uint8(0)).astype(np.uint8)


class ResponseWriter:
    """Writes the three dictionary files of responses into `folder`. Without responses, no file is written."""

    def __init__(self, folder: Path) -> None:
        self._rows = BlobWriter(folder / RESPONSES, RESPONSES_SCHEMA)
        self._header_sets = HeaderSets(folder / RESPONSE_HEADERS)
        self._bodies = PackedWriter(folder / RESPONSE_BODIES)
        self._kept = bytearray()

    def add(self, response: RecordedResponse) -> int:
        """Add a response and return its id."""
        headers = self._header_sets.add(response.headers) if response.headers else -1
        body = self._bodies.add(response.body) if response.body else -1
        row = {
            "type": response.type, "headers": headers, "size": response.size, "digest": response.digest,
            "body": body, "cut": response.cut,
        }  # fmt: skip
        index = self._rows.add(row, tuple(row.values()), _ROW_BYTES)
        if index == len(self._kept):
            self._kept.append(int(body >= 0) * (KEPT_BODY + int(response.cut) * CUT_BODY))
        return index

    def __len__(self) -> int:
        return len(self._kept)

    def kept(self) -> npt.NDArray[np.uint8]:
        """Return the flags of the responses added so far (see `Responses.kept`)."""
        return np.frombuffer(bytes(self._kept), np.uint8)

    def close(self) -> None:
        """Write the buffered responses, and close the files."""
        for file in (self._rows, self._header_sets, self._bodies):
            file.close()
