"""Whether two runs put the same load on their targets, by the scenarios in their documents."""

from __future__ import annotations

from typing import Any

NOT_OF_THE_LOAD = (
    "target",
    "trace",
    "host",
    "slo",
    "allow",
    "allow_production",
    "seed",
    "limits",
    "validity",
    "ignore",
    "answers",
)
"""Settings that do not change what is sent, and when."""


def changed_settings(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """The settings of the load that two scenarios have otherwise."""
    keys = sorted((one.keys() | two.keys()) - set(NOT_OF_THE_LOAD))
    return [key for key in keys if one.get(key) != two.get(key)]
