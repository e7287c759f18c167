"""The settings of a scenario that a lane needs. Made by `python -m replay.settings.derive`; do not edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSettings:
    """The settings of a scenario that a lane receives. Times are in ns."""

    timeout_ns: int = 30_000_000_000
    max_wait_ns: int = 10_000_000_000
    connect: Literal["pool", "per-client", "per-request"] = "pool"
    client_connections: int = 6
    idle_timeout_ns: int = 60_000_000_000
    response_headers_bytes: int = 65_536


def lane_settings(scenario: Scenario) -> dict[str, Any]:
    """Return the settings of a lane by their names in `LaneSettings`."""
    return {
        "timeout_ns": int(scenario.timeout_ns),
        "max_wait_ns": int(scenario.max_wait_ns),
        "connect": scenario.connect,
        "client_connections": int(scenario.client_connections),
        "idle_timeout_ns": int(scenario.idle_timeout_ns),
        "response_headers_bytes": int(scenario.limits.response_headers_bytes),
    }
