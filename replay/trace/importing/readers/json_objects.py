"""Returns the first objects of JSON Lines, the paths in them, and the values at these paths."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from .lines import sniffed_lines

_LOG_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")


def at_path(value: Any, path: str) -> Any:
    """Return the value at a path of an object; None if there is none."""
    if isinstance(value, dict) and path in value:
        return value[path]
    name, _, rest = path.partition(".")
    return at_path(value.get(name), rest) if rest and isinstance(value, dict) else None


def _walk(value: dict[str, Any], prefix: str, depth: int) -> Iterable[str]:
    """Yield the paths of the values in an object.

    Only an empty nested object is a value itself.
    """
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            if depth < 4:
                yield from _walk(inner, f"{prefix}{name}.", depth + 1)
        else:
            yield prefix + name


def values_at(head: bytes, path: str) -> list[str]:
    """Return the values at a path in the first objects, as texts; empty where there is none."""
    found = (at_path(value, path) for value in objects(head))
    return ["" if value is None else str(value) for value in found]


def _object(line: bytes) -> dict[str, Any] | None:
    r"""Parse a line as an object, as leniently as its reader (`\x22`, NaN, invalid UTF-8); None if it is not one."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            value = json.loads(_LOG_ESCAPE.sub(rb"\\u00\1", line).decode("utf-8", "replace"), strict=False)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


@functools.lru_cache(maxsize=4)
def objects(head: bytes) -> list[dict[str, Any]]:
    """Return the first lines that are JSON objects, parsed."""
    return [value for line in sniffed_lines(head) if (value := _object(line)) is not None]


@functools.lru_cache(maxsize=4)
def paths_of(head: bytes) -> list[str]:
    """Return the keys of the first objects.

    A nested key is written `request.method`. Keys of more than five parts are left out.
    """
    return list(dict.fromkeys(path for value in objects(head) for path in _walk(value, "", 0)))
