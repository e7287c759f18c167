"""The obvious twin of the log scanner: regular expressions and the standard library's calendar."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass

from replay.trace.importing.cleaning import Cleaner
from replay.trace.importing.registry import Found, Options

_REQUEST = re.compile(rb'((?:\\.|[^"\\]|"(?! [\d-]))*)" (?=[\d-])', re.DOTALL)
_STAMP = re.compile(rb"(\d\d)/([A-Z][a-z][a-z])/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)")
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_CONTROLS = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"v": b"\v", b"f": b"\f"}


_CLEANER = Cleaner(Found(), Options(), learns=False)
"""Cleans every target; the scanner decides which need it. Like that of logs, it does not learn values: what a line gives
must not depend on the lines before it.
"""


@dataclass(frozen=True)
class Line:
    """What a good line says."""

    at_s: int
    method: str
    target: bytes
    host: str
    client: bytes
    status: int
    size: int


def read_line(line: bytes, *, keep_secrets: bool = False) -> Line | str:
    """A log line (without its newline), or why it is rejected."""
    line = line.lstrip(b"\0")
    if line == b"":
        return "blank"
    if len(line) > 65_536:
        return "too long line"
    client, space, rest = line.partition(b" ")
    if not client or not space:
        return "not this format"
    place = _stamp_place(rest)
    if place is None:
        return "bad time" if b"[" in rest else "not this format"
    if rest[place + 27 : place + 28] != b"]":
        return "bad time"
    request = _REQUEST.match(rest, place + 30)
    if rest[place + 28 : place + 30] != b' "' or request is None:
        return "not this format"
    at_s = _seconds(rest[place + 1 : place + 27])
    if at_s is None:
        return "bad time"
    status = re.compile(rb"(-|\d{3})(?: |\Z)").match(rest, request.end())
    if status is None or (status[1] != b"-" and 0 < int(status[1]) < 100):
        return "bad status"
    size = re.compile(rb"(-|\d{1,18})(?: |\Z)").match(rest, status.end())
    if rest[status.end(1) :] == b"":
        size = re.compile(rb"(-)").match(b"-")
    if size is None:
        return "bad size"
    method, _, target = request[1].partition(b" ")
    if not re.fullmatch(rb"[A-Za-z_][A-Za-z_-]{0,15}", method):
        return "no method"
    found = _target(target, keep_secrets)
    if found is None:
        return "no path"
    known = -1 if status[1] in (b"-", b"000") else int(status[1])
    length = -1 if size[1] == b"-" else int(size[1])
    return Line(at_s, method.decode(), found[1], found[0], _address(client), known, length)


def _address(client: bytes) -> bytes:
    """The client without its port, and before a second one."""
    first = client.partition(b",")[0]
    host, colon, _ = first.rpartition(b":")
    ported = colon and host and (b":" not in host or host.endswith(b"]"))
    return host if ported else first


def _stamp_place(rest: bytes) -> int | None:
    if len(rest) > 33 and rest.startswith(b"- - ["):
        return 4
    for match in re.finditer(rb"\[", rest):
        at = match.start()
        if at + 30 < len(rest) and rest[at + 3] == rest[at + 7] == ord("/") and rest[at + 27] == ord("]"):
            return at
    return None


def _seconds(stamp: bytes) -> int | None:
    match = _STAMP.fullmatch(stamp)
    if match is None or match[2] not in _MONTHS:
        return None
    day, year, hour, minute, second, zone_hour, zone_minute = (int(match[i]) for i in (1, 3, 4, 5, 6, 8, 9))
    if not 1970 <= year <= 2261 or second > 60 or zone_hour > 23 or zone_minute > 59:
        return None
    try:
        whole = dt.datetime(year, _MONTHS.index(match[2]) + 1, day, hour, minute, tzinfo=dt.UTC)
    except ValueError:
        return None
    zone_s = (zone_hour * 60 + zone_minute) * 60
    return int(whole.timestamp()) + second - (zone_s if match[7] == b"+" else -zone_s)


def _target(part: bytes, keep_secrets: bool) -> tuple[str, bytes] | None:
    for protocol in (rb"1\.[01]|[23](?:\.0)?", rb"HTTP/.*"):
        head, space, tail = part.rpartition(b" ")
        if space and re.fullmatch(protocol, tail, re.DOTALL):
            part = head
    part = part.strip(b" ")
    absolute = len(part) >= 8 and re.match(rb"https?://", part, re.IGNORECASE)
    if not part or not (part.startswith(b"/") or part == b"*" or absolute):
        return None
    target, host = _encoded(_unescaped(part)), ""
    if absolute:
        match = re.fullmatch(rb"https?://([^/?#]*)(.*)", target, re.IGNORECASE)
        assert match is not None
        host = match[1].rpartition(b"@")[2].decode().lower()
        target = match[2] if match[2].startswith(b"/") else b"/" + match[2]
    return host, target if keep_secrets else _CLEANER.target(target)


def _unescaped(raw: bytes) -> bytes:
    def one(match: re.Match[bytes]) -> bytes:
        return bytes([int(match[1], 16)]) if match[1] else _CONTROLS.get(match[2], match[2])

    return re.sub(rb'\\x([0-9A-Fa-f]{2})|\\(["\\ntrbvf])', one, raw)


def _encoded(raw: bytes) -> bytes:
    return b"".join(bytes([byte]) if 33 <= byte <= 126 else b"%%%02X" % byte for byte in raw)
