"""The records of a journal: a request and its recorded response."""

from __future__ import annotations

import msgspec

from .requests import Headers


class JournalResponse(msgspec.Struct, array_like=True):
    """A recorded response; the fields are those of `RecordedResponse`."""

    type: str
    headers: Headers
    size: int
    digest: int
    body: bytes | None
    cut: bool


class JournalRecord(msgspec.Struct, array_like=True):
    """A recorded request, cleaned of secrets and normalized.

    `client` is a keyed hash of the client's address. In the fields from `status` to `size`, -1 is unknown.
    """

    at_ns: int
    method: str
    target: bytes
    host: str
    client: bytes
    status: int
    took_ns: int
    first_byte_ns: int
    size: int
    headers: Headers
    body: bytes
    response: JournalResponse | None = None
