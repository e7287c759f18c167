"""Shows the first bytes of a malformed response: enough to recognize the server, without possible secrets.

Lanes keep at most 32 bytes of the first line, and stop before the first `:` or `=`, so no header, cookie or value is
included. A response that is not HTTP can begin with anything, so words that look like secrets are removed here.
"""

from __future__ import annotations

import re

_WORD = re.compile(rb"[!-~]+")
_PROTOCOL = re.compile(rb"[A-Z]{2,5}[/-][0-9](?:\.[0-9])?(?![0-9A-Za-z])")
_MIXED_LENGTH, _LENGTH = 6, 16
"""Words that may be secrets: a number, or a mix of letters and digits, of at least the first length; any word of at
least the second length. A word with an `@` may be one at any length."""

LEFT_OUT = b"[...]"


def shown(beginning: bytes) -> str:
    """Return the bytes as printable ASCII: other bytes and backslashes as `\\xNN`, possible secrets as `[...]`."""
    safe = _WORD.sub(lambda word: _without_secrets(word[0]), beginning)
    return "".join(
        chr(byte) if 32 <= byte <= 126 and byte != ord("\\") else f"\\x{byte:02x}" for byte in safe
    )


def _without_secrets(word: bytes) -> bytes:
    protocol = _PROTOCOL.match(word)
    kept = protocol[0] if protocol else b""
    rest = word[len(kept) :]
    digits, letters = re.search(rb"[0-9]", rest), re.search(rb"[A-Za-z]", rest)
    only_digits = rest.isdigit()
    is_suspect = (
        b"@" in rest
        or len(rest) >= _LENGTH
        or (len(rest) >= _MIXED_LENGTH and (only_digits or (digits is not None and letters is not None)))
    )
    return kept + (LEFT_OUT if is_suspect else rest)
