"""Compares the load of two runs, by the scenarios in their documents."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

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
    "watch",
    "live",
    "live_allow",
    "live_cert",
    "live_key",
    "live_linger",
    "notify",
    "start_at",
    "build",
    "name",
)
"""Settings that change neither what is sent nor when."""


def load_digest(scenario: dict[str, Any], trace_digest: str, closed_loop: bool) -> str:
    """Return a digest that is equal for runs that put the same load on their targets."""
    kept = {key: value for key, value in scenario.items() if key not in NOT_OF_THE_LOAD}
    data = msgspec.json.encode([kept, trace_digest, closed_loop], order="deterministic")
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def changed_settings(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """Return the names of the load settings in which two scenarios differ."""
    keys = sorted((one.keys() | two.keys()) - set(NOT_OF_THE_LOAD))
    return [key for key in keys if one.get(key) != two.get(key)]
