"""What is taken out of a recording before it is kept: values of parameters that look like secrets, and
addresses.
"""

from __future__ import annotations

import re

SECRET_SUFFIXES = (
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "apikey",
    "accesskey",
    "privatekey",
    "signature",
    "sessionid",
    "sessid",
    "credential",
    "credentials",
)
"""A parameter whose name ends with one of these is a secret (`csrf_token`, `X-Amz-Signature`, `PHPSESSID`).
"""

SECRET_NAMES = (
    "key",
    "pass",
    "pwd",
    "auth",
    "authorization",
    "sig",
    "session",
    "sid",
    "jwt",
    "code",
    "otp",
    "pin",
)
"""A parameter of exactly this name is a secret."""

REDACTED = "REDACTED"
"""What stands in the place of a secret's value."""

_NAME = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_MARKS = re.compile(r"[-_.\[\]]")
_PARAMETER = re.compile(r"(?<=[?&;\"'\s,{])([\w%\[\].-]{1,100})(=|\"\s*:\s*\"?|:\s*)([^&;#\s\"']+)")
_IPV4 = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_GROUPS = r"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6}"
_IPV6 = re.compile(
    rf"(?<![\w:])(?:(?:[0-9A-Fa-f]{{1,4}}:){{7}}[0-9A-Fa-f]{{1,4}}|{_GROUPS}::(?:{_GROUPS})?|::{_GROUPS})(?![\w:])"
)
"""All eight groups, or `::` for some: a time of day has colons, too."""
_LOG_HEAD = re.compile(r"^[^\s\[{\"]\S*(?: .{0,200}?)?(?= \[)")
"""Who asked, in a line that has a stamp in brackets behind it."""
_BEARER = re.compile(r"\b(Bearer|Basic|Digest)\s+\S+", re.IGNORECASE)
_USER_INFO = re.compile(r"(?<=://)[^/@\s\"]+@")


def is_secret(name: str) -> bool:
    """Whether a parameter's name looks like a secret's: lower case, percent-decoded, without `- _ . [ ]`."""
    decoded = _NAME.sub(lambda m: chr(int(m[0][1:], 16)) if len(m[0]) == 3 else m[0], name).lower()
    plain = _MARKS.sub("", decoded)
    return plain in SECRET_NAMES or plain.endswith(SECRET_SUFFIXES)


def scrub(text: str) -> str:
    """A line fit to be shown: who asked, addresses and what looks like a secret taken out."""
    text = _LOG_HEAD.sub("- - -", text)
    text = _USER_INFO.sub("", text)
    text = _BEARER.sub(rf"\1 {REDACTED}", text)
    text = _PARAMETER.sub(lambda m: f"{m[1]}{m[2]}{REDACTED}" if is_secret(m[1]) else m[0], text)
    return _IPV6.sub("(address)", _IPV4.sub("(address)", text))


def showable(line: bytes, chars: int) -> str:
    """A line fit to be shown on a terminal: scrubbed, controls written out, cut to `chars` characters."""
    text = scrub(line[: 4 * chars].decode("utf-8", "backslashreplace"))
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return shown if len(shown) <= chars else shown[: chars - 1] + "…"
