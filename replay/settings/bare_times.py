"""Notes on long times without a unit, which other tools would read as milliseconds."""

from __future__ import annotations

from replay.units import SECOND_NS, format_duration

from .scenario import Scenario

LONG_NS = 60 * SECOND_NS


def bare_time_notes(scenario: Scenario) -> list[str]:
    """Return a note for each of `timeout` and `max_wait` that is above 60 s and was written without a unit.

    A note reads `timeout 500 is read as 500 s (8 min 20 s); ...`.
    """
    times = {"timeout": scenario.timeout_ns, "max-wait": scenario.max_wait_ns}
    return [
        f"{name} {time.bare} is read as {time.bare} s ({format_duration(time)}); write {time.bare}ms for milliseconds,"
        f" or {time.bare}s"
        for name, time in times.items()
        if time.bare and time > LONG_NS
    ]
