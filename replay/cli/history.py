"""Texts for the history of a trace: what each step did."""

from __future__ import annotations

import datetime as dt
from typing import Any

from replay import units


def step_words(step: dict[str, Any], zone: dt.tzinfo = dt.UTC) -> tuple[str, str]:
    """Return the name of a history entry's transform, and its parameters as text."""
    rest = {key: value for key, value in step.items() if key != "transform" and value is not None}
    words = [_words(step["transform"], key, value, zone) for key, value in rest.items()]
    return step["transform"], ", ".join(words)


def _words(name: str, key: str, value: Any, zone: dt.tzinfo) -> str:
    if key.endswith("_ns"):
        return f"{key.removesuffix('_ns')} {units.format_moment(value, zone)}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if key == "share":
        return units.format_share(value)
    if key == "factor":
        return f"{units.format_number(value)} times"
    if key == name:
        return str(value)
    return f"{key} {value}"
