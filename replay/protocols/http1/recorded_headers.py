"""Headers and hosts of the recording that are sent again: selected by a list, with hosts renamed.

Before the run, the header lines of each different header set and each host are written once. The render kernel
copies them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay.settings.kinds import HostNames
from replay.trace import Requests
from replay.trace.requests import Headers

ALL = "all"

NOT_OF_ALL = frozenset(
    {
        "host", "content-type", "authorization", "proxy-authorization", "cookie", "forwarded", "via", "x-real-ip",
        "true-client-ip", "cf-connecting-ip",
    }
)  # fmt: skip
"""Recorded headers that `all` leaves out, besides framing headers and X-Forwarded-*.

Most of them describe the original client and its proxies, or contain credentials. They are sent only if they are
listed by name; `host` then sends the recorded host.
"""

NEVER_SENT = frozenset(
    {
        "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "proxy-authenticate",
        "proxy-authentication-info", "upgrade", "http2-settings", "te", "trailer", "trailers", "expect", "x-replay", "host",
        "alt-used", "early-data",
    }
)  # fmt: skip
"""Recorded headers that are never copied, even if they are listed by name.

Most of them belong to the connection. The lines of `host` and `x-replay` are written separately.
"""

VALUE_BYTES_MAX = 64 << 10

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_AUTHORITY = re.compile(rb"(?<=://)([^/?#\s\"'<>,]+)")
_PLAIN = re.compile(rb"[!-~]+")


def renamed(host: bytes, names: HostNames) -> bytes | None:
    """Return the new name of a host (with or without a port) by the rules; None if no rule matches.

    A rule without a port matches any port and keeps it; `*.` on both sides of a rule stands for any subdomain.
    """
    name, colon, port = host.rpartition(b":") if re.search(rb":\d*$", host) else (host, b"", b"")
    for old, new in names:
        before, after = old.encode("ascii").lower(), new.encode("ascii")
        for given, rest in ((host, b""), (name, colon + port)):
            plain = given.lower().rstrip(b".")
            if before.startswith(b"*.") and plain.endswith(before[1:]) and len(plain) >= len(before):
                found = (
                    given[: len(plain) - len(before) + 1] + after[1:] if after.startswith(b"*.") else after
                )
            elif plain == before:
                found = after
            else:
                continue
            return found if re.search(rb":\d+$", after) else found + rest
    return None


def rewritten(value: bytes, names: HostNames) -> bytes:
    """Rename the hosts of complete URLs in a header's value (in Referer, Origin and any other header)."""
    if not names or b"://" not in value:
        return value

    def one(match: re.Match[bytes]) -> bytes:
        user, at, host = match[1].rpartition(b"@")
        return user + at + (renamed(host, names) or host)

    return _AUTHORITY.sub(one, value)


def _undisguised(name: str) -> str:
    """Normalize a header's name as servers may: some treat `Transfer_Encoding` as the name with a hyphen."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def is_chosen(name: str, chosen: Sequence[str], managed: Iterable[str]) -> bool:
    """Return whether a recorded header of this name (in lower case) is sent."""
    if _undisguised(name) in NEVER_SENT or name in managed or name.startswith("sec-websocket-"):
        return False
    if name in chosen:
        return True
    return ALL in chosen and name not in NOT_OF_ALL and not name.startswith("x-forwarded-")


@dataclass(frozen=True, slots=True, eq=False)
class RecordedLines:
    """Header lines for the kernel: text t is data[ends[t]:ends[t + 1]].

    `of_host` int32[hosts + 1] has the number of each host's Host line, and `of_headers` int32[header sets + 1]
    that of each header set. The first entry of both is for requests that have no recorded host or headers.
    """

    of_host: npt.NDArray[np.int32]
    of_headers: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]

    @property
    def typical_bytes(self) -> int:
        """The mean number of bytes of a text."""
        return int(np.diff(self.ends).mean()) if self.ends.size > 1 else 0

    @property
    def longest_bytes(self) -> int:
        """An upper limit on the bytes that the Host line and the header lines add to a request."""
        return 2 * int(np.diff(self.ends).max(initial=0))


NOTHING = RecordedLines(
    np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.uint8)
)
"""The lines of a run that sends no recorded hosts or headers."""


def recorded_lines(
    requests: Requests,
    *,
    host: str,
    sends_host: bool,
    names: HostNames,
    chosen: Callable[[str], bool],
    defaults: Mapping[str, tuple[str, str]],
) -> RecordedLines:
    """Write the header lines of every host and header set of a trace.

    `host` is the Host of requests whose recorded host is not sent. `defaults`, by name in lower case, are lines
    that a request gets if its recording has no header of that name.
    """
    texts: dict[bytes, int] = {}

    def number(text: bytes) -> int:
        return texts.setdefault(text, len(texts))

    hosts = [host.encode("latin-1"), *(name.encode("latin-1", "replace") for name in requests.hosts)]
    of_host = [number(_host_line(own, hosts[0], sends_host, names)) for own in hosts]
    of_headers = [number(_lines((), names, chosen, defaults))]
    of_headers += [number(_lines(headers, names, chosen, defaults)) for headers in requests.header_sets()]
    return RecordedLines(
        of_host=np.array(of_host, np.int32),
        of_headers=np.array(of_headers, np.int32),
        ends=np.cumsum([0, *map(len, texts)]).astype(np.int64),
        data=np.frombuffer(bytearray(b"".join(texts)), np.uint8),
    )


def _host_line(own: bytes, default: bytes, sends_host: bool, names: HostNames) -> bytes:
    """Return the Host line of requests that were recorded for `own`."""
    value = renamed(own, names) or (own if sends_host else default)
    return b"Host: " + (value if _PLAIN.fullmatch(value) else default) + b"\r\n"


def _lines(
    headers: Headers, names: HostNames, chosen: Callable[[str], bool], defaults: Mapping[str, tuple[str, str]]
) -> bytes:
    """Return the chosen headers of one set, in their order; then the defaults that it lacks."""
    found, lacking = [], dict(defaults)
    for name, value in headers:
        key = name.decode("latin-1").lower()
        if value is None or not chosen(key) or not _TOKEN.fullmatch(name):
            continue
        if _CONTROL.search(value) or len(value) > VALUE_BYTES_MAX:
            continue
        lacking.pop(key, None)
        found.append(name + b": " + rewritten(value.strip(), names) + b"\r\n")
    found += [f"{name}: {value}\r\n".encode("latin-1") for name, value in lacking.values()]
    return b"".join(found)
