"""What containers and collectors write in front of a server's line: taken off before the line is read.

CRI (`TIME stdout F line`; P marks a part of a line), docker's json-file, `kubectl logs --prefix`, syslog,
and JSON of collectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np

from ..trace.dictionary import Bytes
from . import json_wrapper

_WRAPPED_SHARE = 0.5
_SNIFFED_LINES = 50

_ISO = rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_TAG = rb"[^\s:\[\]]{1,48}(?:\[\d+\])?:(?: |(?!\d))"
_CRI = re.compile(rb"^" + _ISO + rb" std(?:out|err) (?:F |P ([^\n]*)\n)", re.MULTILINE)
_DOCKER = re.compile(rb'^\{"log":"((?:[^"\\\n]|\\.)*)"[^\n]*\n', re.MULTILINE)
_KUBECTL = re.compile(rb"^\[(?:pod|po|deployment|job|statefulset|daemonset)/[^\] \n]+\] ", re.MULTILINE)
_SYSLOG = re.compile(
    rb"^(?:<\d{1,3}>1 \S+ \S+ \S+ \S+ \S+ (?:-|\[[^\]\n]*\]) (?:\xef\xbb\xbf)?"
    rb"|(?:<\d{1,3}>)?(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|" + _ISO + rb") \S+ " + _TAG + rb")",
    re.MULTILINE,
)
_UNICODE = re.compile(rb"\\u([0-9a-fA-F]{4})")


def _docker(data: bytes) -> bytes:
    """Docker's lines: an entry whose text does not end in a newline goes on in the next."""
    inside = _DOCKER.sub(rb"\1", data)
    inside = inside.replace(rb"\\", b"\0").replace(rb"\"", b'"').replace(rb"\n", b"\n").replace(rb"\t", b"\t")
    inside = inside.replace(rb"\r", b"\r").replace(rb"\/", b"/")
    if b"\\u" in inside:
        inside = _UNICODE.sub(lambda m: chr(int(m[1], 16)).encode("utf-8", "replace"), inside)
    return inside.replace(b"\0", b"\\")


_WRAPPERS: dict[str, tuple[re.Pattern[bytes], Callable[[bytes], bytes]]] = {
    "cri": (_CRI, lambda data: _CRI.sub(rb"\1", data)),
    "json": (json_wrapper.PATTERN, json_wrapper.unwrap),
    "docker": (_DOCKER, _docker),
    "kubectl": (_KUBECTL, lambda data: _KUBECTL.sub(b"", data)),
    "syslog": (_SYSLOG, lambda data: _SYSLOG.sub(b"", data)),
}


def wrapper_of(head: bytes) -> str:
    """What the first lines are wrapped in; empty where in nothing."""
    lines = [line + b"\n" for line in head.split(b"\n")[:-1] or [head] if line.strip()][:_SNIFFED_LINES]
    for name, (pattern, _) in _WRAPPERS.items():
        if lines and sum(pattern.match(line) is not None for line in lines) > _WRAPPED_SHARE * len(lines):
            return name
    return ""


def unwrap(name: str, data: bytes) -> bytes:
    """Whole lines without what they are wrapped in. The last may be left without its newline, to go on."""
    return _WRAPPERS[name][1](data)


def unwrapped(name: str, blocks: Iterator[tuple[Bytes, int]]) -> Iterator[tuple[Bytes, int]]:
    """Blocks as `SourceFile.blocks` gives them, without what their lines are wrapped in."""
    held = b""
    buffer = np.empty(0, dtype=np.uint8)
    for block, end in blocks:
        if len(buffer) < 2 * len(block):
            buffer = np.empty(2 * len(block), dtype=np.uint8)
        data = held + unwrap(name, block[:end].tobytes())
        last = data.rfind(b"\n") + 1 or (len(data) if len(data) > len(block) else 0)
        data, held = data[:last], data[last:]
        buffer[: len(data)] = np.frombuffer(data, dtype=np.uint8)
        if len(data):
            yield buffer, len(data)
    if held:
        data = held + b"\n"
        buffer[: len(data)] = np.frombuffer(data, dtype=np.uint8)
        yield buffer, len(data)
