"""Removes what containers and log collectors add to a server's line.

Some wrap the whole line (docker's json-file, JSON of collectors) or split it into parts (CRI); most put a prefix
before it. A wrapper is removed only if the remaining text matches a format better than the original lines.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np

from replay.trace.dictionary import Bytes

from . import json_wrapper

_WRAPPED_SHARE = 0.5
_SNIFFED_LINES = 200
_PART_BYTES_MAX = 1 << 20
"""Parts of a line are joined up to this many bytes, because anything longer is not a log line."""

_ISO = rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?: ?(?:Z|[+-]\d\d:?\d\d))?"
_TAG = rb"(?:[a-z0-7]{3,8}\.[a-z]{3,7} )?[^\s:\[\]]{1,48}(?:\[[^\]\s]{1,48}\])?:(?: |(?!\d))"
_FULL = rb"[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? [A-Z+][A-Z0-9+:-]{0,5}"
"""A timestamp of `journalctl -o short-full`."""

_COLOURS = rb"(?:\x1b\[[0-9;]*m)*"
_CRI = re.compile(rb"^" + _ISO + rb" (stdout|stderr) ([FP]) ", re.MULTILINE)
_CRI_PART = re.compile(rb"^" + _ISO + rb" std(?:out|err) P ", re.MULTILINE)
_DOCKER = re.compile(rb'^\{"log":"((?:[^"\\\n]|\\.)*)"([^\n]*)\n', re.MULTILINE)
_DOCKER_PART = re.compile(rb'^\{"log":"(?:[^"\\\n]|\\.)*+(?<!\\n)"', re.MULTILINE)
_DOCKER_STREAM = re.compile(rb'"stream":"(\w+)"')
_UNICODE = re.compile(rb"\\u([0-9a-fA-F]{4})")

_PREFIXES = {
    "kubectl": rb"\[[^\]\n]{1,200}\] ",
    "stamp": _ISO + rb"[ \t]+",
    "labels": _ISO + rb"[ \t]+\{[^}\n]*\}[ \t]+",
    "syslog": rb"(?:<\d{1,3}>1 \S+ \S+ \S+ \S+ \S+ (?:-|\[[^\]\n]*\]) (?:\xef\xbb\xbf)?"
    rb"|(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)?|\d{10}\.\d{6}|"
    + _FULL
    + rb"|"
    + _ISO
    + rb") (?:\S+ )?"
    + _TAG
    + rb")",
    "compose": rb"(?:\d+\|)?[\w.-]{1,100} *" + _COLOURS + rb"\|" + _COLOURS + rb" ?",
    "stream": _ISO + rb"[ \t]+\S+[ \t]+",
    "kail": rb"[\w.-]{1,100}/[\w.-]{1,200}\[[\w.-]{1,100}\]: ",
    "grep": rb"(?:[^\s:\"\[{]*[^\s:\"\[{\d][^\s:\"\[{]*:(?:\d+:)?|\d+:)(?=\S)",
    "stern": rb"[\w.-]{1,200} [\w.-]{1,100} ",
}
"""Prefixes, in the order in which they are tried.

`kubectl` is the prefix of `kubectl logs --prefix`. `stamp` is a timestamp (`docker logs -t`, `kubectl logs
--timestamps`), and `labels` a timestamp with labels (logcli). `syslog` may lack the host, as at Heroku. `compose` is
the prefix of `docker compose logs` and PM2. `stream` is a timestamp with the name of a stream (`aws logs tail`). `kail`
and `stern` are the names of a pod and its container. `grep` is the name of a file or the number of a line.
"""

_PATTERNS = {
    name: re.compile(rb"^" + _COLOURS + prefix + _COLOURS, re.MULTILINE) for name, prefix in _PREFIXES.items()
}


def _escapes_undone(text: bytes) -> bytes:
    r"""Decode the escapes of a JSON string, except \b and \f; a surrogate becomes a question mark."""
    text = text.replace(rb"\\", b"\0").replace(rb"\"", b'"').replace(rb"\n", b"\n").replace(rb"\t", b"\t")
    text = text.replace(rb"\r", b"\r").replace(rb"\/", b"/")
    if b"\\u" in text:
        text = _UNICODE.sub(lambda m: chr(int(m[1], 16)).encode("utf-8", "replace"), text)
    return text.replace(b"\0", b"\\")


class _Prefix:
    """Removes a prefix from each line."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern

    def feed(self, data: bytes) -> bytes:
        """Remove the prefix from whole lines."""
        return self._pattern.sub(b"", data)

    def finish(self) -> bytes:
        """Return nothing, because no line is held back."""
        return b""


class _Parts(ABC):
    """Joins the parts of lines, separately for each stream.

    Standard output and standard error share one file.
    """

    def __init__(self) -> None:
        self._held: dict[bytes, bytes] = {}

    def feed(self, data: bytes) -> bytes:
        """Return the lines that are now complete, or longer than _PART_BYTES_MAX, and hold back the other parts."""
        if not self._held and not self._has_parts(data):
            return self._plain(data)
        out = bytearray()
        for line in data.splitlines(keepends=True):
            stream, text, whole = self._part(line)
            if stream is None:
                out += text
                continue
            text = self._held.pop(stream, b"") + text
            if whole or len(text) > _PART_BYTES_MAX:
                out += text if text.endswith(b"\n") else text + b"\n"
            else:
                self._held[stream] = text.rstrip(b"\r\n")
        return bytes(out)

    def finish(self) -> bytes:
        """Return parts whose lines never ended, joined to one line for each stream."""
        left = b"".join(text + b"\n" for text in self._held.values())
        self._held.clear()
        return left

    @abstractmethod
    def _has_parts(self, data: bytes) -> bool:
        """Return whether any of these lines is only a part."""

    @abstractmethod
    def _plain(self, data: bytes) -> bytes:
        """Unwrap lines that are all complete."""

    @abstractmethod
    def _part(self, line: bytes) -> tuple[bytes | None, bytes, bool]:
        """Return the stream of a line (None if it is not wrapped), its text, and whether the text ends a line."""


class _Cri(_Parts):
    """Unwraps CRI lines (`TIME stdout F line`); P instead of F marks a part of a line."""

    def _has_parts(self, data: bytes) -> bool:
        return _CRI_PART.search(data) is not None

    def _plain(self, data: bytes) -> bytes:
        return _CRI.sub(b"", data)

    def _part(self, line: bytes) -> tuple[bytes | None, bytes, bool]:
        found = _CRI.match(line)
        if found is None:
            return None, line, True
        return found[1], line[found.end() :], found[2] == b"F"


class _Docker(_Parts):
    """Unwraps docker's json-file.

    An entry whose text lacks a final newline continues in the next entry of its stream.
    """

    def _has_parts(self, data: bytes) -> bool:
        return _DOCKER_PART.search(data) is not None

    def _plain(self, data: bytes) -> bytes:
        return _escapes_undone(_DOCKER.sub(rb"\1", data))

    def _part(self, line: bytes) -> tuple[bytes | None, bytes, bool]:
        found = _DOCKER.match(line)
        if found is None:
            return None, line, True
        text, stream = _escapes_undone(found[1]), _DOCKER_STREAM.search(found[2])
        return stream[1] if stream else b"", text, text.endswith(b"\n")


class _Json:
    """Extracts lines from the JSON of a log collector."""

    def feed(self, data: bytes) -> bytes:
        """Replace each line by the text inside it, if it has one (`json_wrapper.unwrap`)."""
        return json_wrapper.unwrap(data)

    def finish(self) -> bytes:
        """Return nothing, because no line is held back."""
        return b""


_Stage = _Prefix | _Parts | _Json

_WHOLE: dict[str, tuple[re.Pattern[bytes], Callable[[], _Stage]]] = {
    "cri": (_CRI, _Cri),
    "json": (json_wrapper.PATTERN, _Json),
    "docker": (_DOCKER, _Docker),
}


VAGUE = frozenset({"stern"})
"""Prefixes that lines without a wrapper often have, too."""


def wrappers_of(head: bytes) -> list[str]:
    """Return the wrappers that more than half of the first lines may have, in the order in which they are tried."""
    lines = [line + b"\n" for line in head.split(b"\n")[:-1] or [head] if line.strip()][:_SNIFFED_LINES]
    patterns = {**{name: pattern for name, (pattern, _) in _WHOLE.items()}, **_PATTERNS}
    return [
        name
        for name, pattern in patterns.items()
        if sum(pattern.match(line) is not None for line in lines) > _WRAPPED_SHARE * len(lines)
    ]


def _stages(wrapper: str) -> list[_Stage]:
    """Return the objects that remove the wrappers `outer+inner`, the outer one first."""
    return [
        _WHOLE[name][1]() if name in _WHOLE else _Prefix(_PATTERNS[name])
        for name in filter(None, wrapper.split("+"))
    ]


def unwrap(wrapper: str, data: bytes) -> bytes:
    """Remove a wrapper, or nested ones (`outer+inner`), from whole lines."""
    for stage in _stages(wrapper):
        data = stage.feed(data)
        data += stage.finish()
    return data


def unwrapped(wrapper: str, blocks: Iterator[tuple[Bytes, int]]) -> Iterator[tuple[Bytes, int]]:
    """Remove a wrapper, or nested ones (`outer+inner`), from blocks as `SourceFile.blocks` yields them."""
    stages = _stages(wrapper)
    buffer = np.empty(0, dtype=np.uint8)

    def passed(data: bytes, first: int) -> bytes:
        for stage in stages[first:]:
            data = stage.feed(data)
        return data

    def pieces() -> Iterator[bytes]:
        for block, end in blocks:
            yield passed(block[:end].tobytes(), 0)
        for number, stage in enumerate(stages):
            yield passed(stage.finish(), number + 1)

    for data in pieces():
        if len(buffer) < len(data) + 64:
            buffer = np.empty(2 * len(data) + 64, dtype=np.uint8)
        buffer[: len(data)] = np.frombuffer(data, dtype=np.uint8)
        if len(data):
            yield buffer, len(data)
