"""Up to the peak, there for a while, and down again through the same loads: what differs is hysteresis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from .recovery import WATCH_TIMES
from .recovery import Verdict as RecoveryVerdict
from .search import Search, Trial, Verdict

LOADS_DOWN_MAX = 6
"""Loads of the way down: the overload, and the highest that were passed on the way up."""


class Measure(Protocol):
    """Makes one trial at a load, and says what came of it."""

    def __call__(self, load: float, stage: str) -> Trial:
        """`stage` is up, hold or down."""


@dataclass(slots=True)
class Climb:
    """What a climb has found. `peak` is the highest load that met every goal, `above` the lowest that did not.

    `hysteresis` is by how much the first load that met them on the way down is below the peak (0: it is the peak).
    """

    verdict: Verdict
    peak: float = 0.0
    above: float = 0.0
    held: bool | None = None
    hysteresis: float | None = None
    recovery: RecoveryVerdict = "UNKNOWN"
    recovered_after_s: float | None = None
    contradictions: list[float] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)


def climb(search: Search, measure: Measure, say: Callable[[Trial], None] = lambda _: None) -> Climb:
    """Search, hold, and come down again. A trial that the generator limited ends it there."""

    def tried(load: float, stage: str) -> Trial:
        trial = measure(load, stage)
        trials.append(trial)
        say(trial)
        return trial

    trials: list[Trial] = []
    while (load := search.next_load()) is not None:
        search.add(tried(load, "up"))
    bounds = search.peak()
    verdict = search.verdict() or "OUT_OF_TRIALS"
    found = Climb(verdict, bounds.lower, bounds.upper, contradictions=search.contradictions(), trials=trials)
    if verdict not in ("FOUND", "NO_LIMIT"):
        return found
    found.held = tried(bounds.lower, "hold").ok
    if verdict == "FOUND":
        _down(found, search, tried)
    return found


def _down(found: Climb, search: Search, tried: Callable[[float, str], Trial]) -> None:
    """An overload, and from it down through the loads of the way up; at the lowest until it is itself again."""
    passed = sorted({trial.load for trial in search.trials if trial.load <= found.peak}, reverse=True)
    loads = [*passed[: LOADS_DOWN_MAX - 1], passed[-1]]
    overload = max(trial.load for trial in search.trials)
    trigger = tried(overload, "down")
    waited_s = 0.0
    for number in range(1_000):
        load = loads[min(number, len(loads) - 1)]
        if number >= len(loads) and waited_s >= WATCH_TIMES * trigger.length_s:
            found.recovery = "DID_NOT_RECOVER"
            return
        trial = tried(load, "down")
        if trial.generator_limited:
            return
        if trial.ok:
            found.hysteresis = 1 - load / found.peak
            found.recovery, found.recovered_after_s = "RECOVERED", waited_s
            break
        waited_s += max(trial.length_s, 1e-3)
    for lower in loads[loads.index(load) + 1 :]:
        tried(lower, "down")
