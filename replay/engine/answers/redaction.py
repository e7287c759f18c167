"""Removes secrets from bodies and headers of kept responses.

In JSON a value is secret because of its member's name. `code` and `key` name secrets in a URL, but usually not in
a response: there only a value that looks like a token is secret.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

from replay.trace.importing.people import JWT
from replay.trace.importing.secret_names import is_secret, is_secret_header
from replay.trace.importing.secrets import REDACTED, Shown, redacted

_MEMBER = re.compile(rb'"([^"\\]{1,120})"[ \t\r\n]{0,8}:[ \t\r\n]{0,64}')
_MEMBER_OF_TEXT = re.compile(r'"([^"\\]{1,120})"[ \t\r\n]{0,8}:[ \t\r\n]{0,64}')
_LITERALS = (None, True, False)
_AMBIGUOUS = frozenset({"code", "key", "card", "ticket", "pin", "session"})
_TOKEN = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[\w.~+/=-]{20,}")
_DECODER = json.JSONDecoder()
_JWT_BEGINS = b"eyJ"


@lru_cache(1 << 12)
def _may_be_secret(name: bytes) -> bool:
    text = name.decode("latin-1")
    return is_secret(text) or text.lower() == "set-cookie"


def redact_json(body: bytes) -> bytes:
    """Return a JSON text without the values of secret members and without JWTs.

    A cut text may end within such a value.
    """
    if (
        _JWT_BEGINS not in body
        and b'\\"' not in body
        and not any(map(_may_be_secret, set(_MEMBER.findall(body))))
    ):
        return body
    text = body.decode("utf-8", "surrogateescape")
    pieces, at = [], 0
    for member in _MEMBER_OF_TEXT.finditer(text):
        begin = member.end()
        if member.start() < at or not _may_be_secret(member[1].encode("latin-1", "replace")):
            continue
        try:
            value, end = _DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError):
            value, end = "", len(text)
        if value in _LITERALS or (member[1].lower() in _AMBIGUOUS and not _is_token(value)):
            continue
        pieces += [text[at:begin], f'"{REDACTED}"']
        at = end
    text = "".join([*pieces, text[at:]])
    if '\\"' in text:
        text = redacted(text, Shown())
    return JWT.sub(REDACTED, text).encode("utf-8", "surrogateescape")


def _is_token(value: object) -> bool:
    return not isinstance(value, str | int | float) or _TOKEN.fullmatch(str(value)) is not None


def redact_text(body: bytes) -> bytes:
    """Return a text that is not JSON without its secrets."""
    text = body.decode("utf-8", "surrogateescape")
    return JWT.sub(REDACTED, redacted(text, Shown())).encode("utf-8", "surrogateescape")


@lru_cache(256)
def hides_header(name: str) -> bool:
    """Return whether the whole value of a header is a secret."""
    return name.lower() in ("set-cookie", "www-authenticate") or is_secret_header(name)


@lru_cache(1 << 12)
def redact_header(value: bytes) -> bytes:
    """Return a header value without its secrets, such as those in a URL."""
    if b"=" not in value and b"@" not in value and b"eyJ" not in value:
        return value
    text = redacted(value.decode("latin-1"), Shown(), in_url=True)
    return JWT.sub(REDACTED, text).encode("latin-1", "replace")
