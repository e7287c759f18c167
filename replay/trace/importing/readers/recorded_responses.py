"""Keeps what the options allow of recorded responses: headers and bodies without secrets, sizes and digests."""

from __future__ import annotations

import re
from collections.abc import Sequence

from replay.trace.importing.cleaning import Cleaner
from replay.trace.importing.codings import BadCoding, coding_of, decoded, encoded
from replay.trace.importing.registry import Found, Options
from replay.trace.requests import Headers
from replay.trace.responses import RecordedResponse, body_digest, media_type

RESPONSE_BODY_BYTES_MAX = 1 << 20
"""At most this many bytes of a response body are kept."""

NOT_TEXT, NOT_READ = "are not text", "cannot be decoded"
"""Reasons why response bodies are not kept."""

_TEXT = frozenset(
    {
        "application/json", "application/xml", "application/javascript", "application/ecmascript",
        "application/x-javascript", "application/x-www-form-urlencoded", "application/x-ndjson", "application/graphql",
        "application/yaml", "application/x-yaml", "application/toml", "application/sql", "application/jwt",
        "image/svg+xml",
    }
)  # fmt: skip
_LOOKED_AT_BYTES = 1 << 10
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1a]")
"""Bytes that do not occur in text."""


def is_text(kind: str, body: bytes) -> bool:
    """Return whether a body is text, according to its media type, or to its first bytes if it has none."""
    if kind:
        return kind.startswith("text/") or kind in _TEXT or kind.endswith(("+json", "+xml", "+text"))
    return _CONTROL.search(body, 0, _LOOKED_AT_BYTES) is None


def without_secrets(cleaner: Cleaner, body: bytes, coding: bytes, side: str = "") -> bytes:
    """Remove the secrets from a body, and encode it in its content coding again.

    Raises BadCoding if the body cannot be decoded.
    """
    plain = decoded(body, coding)
    clean = cleaner.body(plain, side)
    return body if clean == plain else encoded(clean, coding)


class ResponseKeeper:
    """Builds recorded responses from what a reader found."""

    def __init__(self, cleaner: Cleaner, found: Found, options: Options) -> None:
        self._cleaner, self._found = cleaner, found
        self._keeps, self._secrets = options.responses, options.keep_secrets

    def made(
        self, pairs: Sequence[tuple[bytes, bytes]], body: bytes | None, *, size: int = -1, is_whole: bool = True,
        kind: str = "",
    ) -> RecordedResponse | None:  # fmt: skip
        """Build a response; None if there is nothing to keep.

        `pairs` are its headers without those of the connection. `body` is the recorded part of its body (None:
        nothing). `size` is the length of the whole body on the wire (-1: unknown), and counts only if the recorded part
        is missing or not whole. `kind` is the media type if it was recorded separately from the headers.
        """
        if self._keeps == "none":
            return None
        headers = self._cleaner.headers(pairs)
        return self.made_with(headers, media_type(tuple(pairs)) or kind, body, size=size, is_whole=is_whole)

    def made_with(
        self, headers: Headers, kind: str, body: bytes | None, *, size: int = -1, is_whole: bool = True,
        digest: int | None = None,
    ) -> RecordedResponse | None:  # fmt: skip
        """Build a response as `made` does, with headers that are already clean.

        `digest` is the digest of the body, if known. Returns None if only the size is known, because the event has
        it, too.
        """
        if body is None:
            return RecordedResponse(kind, headers, size) if headers or kind else None
        if not is_whole:
            digest = 0
        elif digest is None:
            digest = body_digest(body)
        size = len(body) if is_whole else size
        kept = self._kept(kind, headers, body) if body else b""
        cut = kept is not None and (not is_whole or len(kept) > RESPONSE_BODY_BYTES_MAX)
        kept = None if kept is None or (cut and not kept) else kept[:RESPONSE_BODY_BYTES_MAX]
        return RecordedResponse(kind, headers, size, digest, kept, cut and kept is not None)

    def _kept(self, kind: str, headers: Headers, body: bytes) -> bytes | None:
        """Return a body without its secrets; None if it is not kept.

        The reason is counted, unless the options keep only digests. If secrets are kept, a body that cannot be decoded
        is returned unchanged.
        """
        if self._keeps == "digest":
            return None
        coding = coding_of(headers)
        if self._keeps == "text" and not is_text(kind, b"" if coding else body):
            self._found.leave_body(NOT_TEXT)
            return None
        try:
            return without_secrets(self._cleaner, body, coding, "response ")
        except BadCoding:
            if self._secrets:
                return body
            self._found.leave_body(NOT_READ)
            return None
