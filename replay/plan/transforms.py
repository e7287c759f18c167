"""Transforms of a trace that a scenario's settings require, for `replay transform` and the library."""

from __future__ import annotations

from dataclasses import replace

from replay.settings.scenario import Scenario
from replay.trace import Trace
from replay.workload.transform import Transform

from .due import make_clock, time_zone


def transform_of(trace: Trace, scenario: Scenario) -> Transform:
    """Return the transform for a scenario's settings.

    Raises UsageError if its window is empty, or lies outside the trace.
    """
    clock = make_clock(trace, scenario, time_zone(trace, scenario)) if trace.rows else None
    window = scenario.window
    return replace(
        Transform.of(scenario),
        from_ns=clock.from_ns if clock and window.from_ is not None else None,
        until_ns=clock.window_until_ns if clock and window.until is not None else None,
        speed=float(scenario.speed),
        compress_to_ns=scenario.compress_to_ns,
    )
