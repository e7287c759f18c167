"""Suggests `--columns` for JSON in an unknown format, guessed from the values, for the user to check."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .addresses import is_address
from .json_objects import at_path, objects, paths_of

_STAMP = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:|(?:1|2)\d{9}(?:\d{3}){0,3}(?:\.\d+)?$"
)
_METHOD = re.compile(r"GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE")
_REQUEST = re.compile(rf"(?:{_METHOD.pattern}) \S+")
_PATH = re.compile(r"/\S*|https?://\S+")
_STATUS = re.compile(r"[1-5]\d\d(?:\.0+)?")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_TOOK_NAME = re.compile(r"dur|latency|elapsed|took|time_?taken|response_?time|request_?time")
_TOOK_UNIT = re.compile(r"(ns|nanos|us|micros|ms|millis|_s|secs?|seconds)$")
_UNITS = {"ns": "ns", "nanos": "ns", "us": "us", "micros": "us", "ms": "ms", "millis": "ms"}
_SHARE = 0.5


def _matches(pattern: re.Pattern[str]) -> Callable[[str, str], bool]:
    return lambda name, text: pattern.fullmatch(text) is not None


_LIKELY: dict[str, tuple[re.Pattern[str], Callable[[str, str], bool]]] = {
    "at": (
        re.compile(r"time|date|ts|at|start|when|stamp"),
        lambda name, text: _STAMP.match(text) is not None,
    ),
    "request": (re.compile(r"request|line|msg|message"), _matches(_REQUEST)),
    "method": (re.compile(r"method|verb"), _matches(_METHOD)),
    "path": (re.compile(r"url|uri|path|target|endpoint|route"), _matches(_PATH)),
    "status": (re.compile(r"status|code"), _matches(_STATUS)),
    "client": (re.compile(r"client|remote|ip|source|addr|peer"), lambda name, text: is_address(text)),
    "bytes": (re.compile(r"bytes|size|length"), _matches(_NUMBER)),
}
"""By role: the names that its key may have, and the form of its values."""


def proposed_columns(head: bytes) -> str:
    """Return `at=KEY,path=KEY,...` for JSON Lines; empty if no key looks like a time, or none like a request."""
    values = objects(head)[:200]
    texts = {path: _texts(values, path) for path in paths_of(head)}
    found: dict[str, str] = {}
    for role, (name, fits) in _LIKELY.items():
        if role in ("method", "path") and "request" in found:
            continue
        candidates = [
            path
            for path, present in texts.items()
            if path not in found.values()
            and present
            and sum(fits(path, text) for text in present) > _SHARE * len(present)
        ]
        named = [path for path in candidates if name.search(path.rpartition(".")[2].lower())]
        if named or (candidates and role in ("at", "request", "path")):
            found[role] = (named or candidates)[0]
    if "at" not in found or not {"request", "path"} & set(found):
        return ""
    return ",".join(f"{role}={path}" for role, path in {**found, **_took(texts, found)}.items())


def _texts(values: list[dict[str, Any]], path: str) -> list[str]:
    present = [at_path(value, path) for value in values]
    return [
        str(each) for each in present if isinstance(each, str | int | float) and not isinstance(each, bool)
    ]


def _took(texts: dict[str, list[str]], found: dict[str, str]) -> dict[str, str]:
    """Return the role and key of the first duration whose name implies a unit; empty if there is none."""
    for path, present in texts.items():
        name = path.rpartition(".")[2].lower()
        unit = _TOOK_UNIT.search(name) if _TOOK_NAME.search(name) else None
        if unit and path not in found.values() and all(_NUMBER.fullmatch(text) for text in present):
            return {f"took_{_UNITS.get(unit[1], 's')}": path}
    return {}
