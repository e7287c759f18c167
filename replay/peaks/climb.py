"""Climbs to the peak, holds it, and descends through the same loads.

The difference between the two directions is hysteresis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from replay.results.baseline import like_baseline
from replay.shown import html_table
from replay.units import format_latency, format_rate, format_share

from .actions import ActionHold
from .first_change import FirstChange
from .recovery import WATCH_TIMES
from .recovery import Verdict as RecoveryVerdict
from .search import Search, Trial, Verdict

HOLDS_MAX, HOLD_STEP = 3, 0.05
"""Number of loads at which a hold is tried: the peak, and up to two lower loads if the peak could not be held.

Each lower load is the highest one that passed on the way up and that is lower by at least the share HOLD_STEP.
"""

LOADS_DOWN_MAX = 6
"""Maximum number of loads of the descent below the overload: the highest that passed on the way up, and the lowest."""


class Measure(Protocol):
    """Makes one trial at a load and returns its result."""

    def __call__(self, load: float, stage: str) -> Trial:
        """Run the trial. `stage` is up, probe, hold or down."""


@dataclass(frozen=True, slots=True)
class CoolDown:
    """The recovery after a trial at `load` that missed a goal.

    `took_s` is how many seconds passed until the target behaved at the lowest load as before (None: it did not in
    time).
    """

    load: float
    took_s: float | None


@dataclass(slots=True, repr=False)
class Climb:
    """The result of a climb. `peak` is the highest load that met every goal, `above` the lowest that did not.

    `above` is infinite if no load missed a goal. `held` says whether the peak also met every goal for the length
    of a hold (None: not known). `held_load` is the highest load that did (None: not known). `hysteresis` is the
    share by which the first load that met every goal on the way down is below the peak (0: it is the peak; None:
    not known). `recovered_after_s` is the time from the overload until then.

    `window` is the part of the recording that trials and holds replay (a `replay.peaks.window.Stretch`).
    `actions` has the load up to which each business action holds. `first_changes` has the watched figure that
    changed first in trials that missed an objective.
    """

    verdict: Verdict
    peak: float = 0.0
    above: float = 0.0
    held: bool | None = None
    held_load: float | None = None
    hysteresis: float | None = None
    recovery: RecoveryVerdict = "UNKNOWN"
    recovered_after_s: float | None = None
    contradictions: list[float] = field(default_factory=list)
    cool_downs: list[CoolDown] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    window: Any = None
    actions: list[ActionHold] = field(default_factory=list)
    first_changes: list[FirstChange] = field(default_factory=list)

    def _facts(self) -> list[tuple[str, str]]:
        held = {True: "yes", False: "no", None: "not known"}[self.held]
        above = "none" if math.isinf(self.above) else f"{self.above:.3g} times the recording"
        facts = [("verdict", self.verdict), ("peak", f"{self.peak:.3g} times the recording")]
        facts += [("misses an objective", above), ("held", held), ("recovery", self.recovery)]
        return facts

    def __repr__(self) -> str:
        return f"<Climb {self.verdict}: peak {self.peak:.3g} times the recording, {len(self.trials)} trials>"

    def _repr_html_(self) -> str:
        """Return the view for a notebook: the answer, and the trials in the order in which they ran."""
        heads = ("stage", "times", "rate", "p50", "p99", "failed", "objectives")
        rows = [
            (
                trial.stage,
                f"{trial.load:.3g}",
                format_rate(trial.rate_per_s),
                _time(trial.p50_ns),
                _time(trial.p99_ns),
                format_share(trial.failed_share),
                trial.generator_limited or ("met" if trial.ok else "missed"),
            )
            for trial in self.trials
        ]
        return html_table("Peak", (), self._facts()) + html_table("Trials", heads, rows)


def _time(value_ns: int | None) -> str:
    return "" if value_ns is None else format_latency(value_ns)


def climb(search: Search, measure: Measure, say: Callable[[Trial], None] = lambda _: None) -> Climb:
    """Search for the peak, hold it, and descend.

    After each trial that missed a goal on the way up or in a hold, the target is probed at the lowest load until it has
    recovered, because otherwise the damage of one trial would make the next one fail. The climb ends early if the
    target never recovers, or if the generator limits a trial on the way up or down.
    """

    def tried(load: float, stage: str) -> Trial:
        trial = measure(load, stage)
        trials.append(trial)
        say(trial)
        return trial

    trials: list[Trial] = []
    cool_downs: list[CoolDown] = []

    def recovers(after: Trial) -> bool:
        """Wait until the target has recovered after a trial that missed a goal; False if it never does."""
        base = next((each for each in search.trials if each.load == search.lowest and each.ok), None)
        if base is None or after.ok or after.generator_limited:
            return True
        cool_downs.append(CoolDown(after.load, _cooled_down(base, after, tried)))
        return cool_downs[-1].took_s is not None

    while (load := search.next_load()) is not None:
        trial = tried(load, "up")
        search.add(trial)
        if not recovers(trial):
            break
    bounds = search.peak()
    found = Climb(
        search.verdict() or "DID_NOT_RECOVER",
        bounds.lower,
        bounds.upper,
        contradictions=search.contradictions(),
        cool_downs=cool_downs,
        trials=trials,
    )
    if found.verdict in ("FOUND", "NO_LIMIT") and _is_back(found):
        _hold(found, search, tried, recovers)
    if not _is_back(found):
        found.verdict = found.recovery = "DID_NOT_RECOVER"
        found.above = min(found.above, cool_downs[-1].load)
    elif found.verdict == "FOUND":
        _down(found, search, tried)
    return found


def _is_back(found: Climb) -> bool:
    return not found.cool_downs or found.cool_downs[-1].took_s is not None


def _hold(
    found: Climb, search: Search, tried: Callable[[float, str], Trial], recovers: Callable[[Trial], bool]
) -> None:
    """Try the peak for the length of a hold, and lower loads if the target does not sustain it (see HOLDS_MAX)."""
    load = found.peak
    for number in range(HOLDS_MAX):
        trial = tried(load, "hold")
        if trial.generator_limited:
            return
        if number == 0:
            found.held = trial.ok
        if trial.ok:
            found.held_load = load
            return
        lower = [each.load for each in search.trials if each.ok and each.load <= load * (1 - HOLD_STEP)]
        if not recovers(trial) or not lower:
            return
        load = max(lower)


def _cooled_down(base: Trial, after: Trial, tried: Callable[[float, str], Trial]) -> float | None:
    """Probe the target at the lowest load, and return the seconds until it behaves as in `base`.

    Return None if it does not within WATCH_TIMES the length of the trial `after`.
    """
    waited_s = 0.0
    while True:
        probe = tried(base.load, "probe")
        if like_baseline(probe.p50_ns, probe.failed_share, base.p50_ns, base.failed_share):
            return waited_s
        waited_s += probe.length_s
        if waited_s >= WATCH_TIMES * after.length_s:
            return None


def _down(found: Climb, search: Search, tried: Callable[[float, str], Trial]) -> None:
    """Overload the target, then descend through the loads of the ascent.

    At the lowest load, wait for recovery until WATCH_TIMES the length of the overload has passed. If the generator
    limits a trial, the recovery remains unknown.
    """
    passed = sorted({trial.load for trial in search.trials if trial.load <= found.peak}, reverse=True)
    loads = passed if len(passed) <= LOADS_DOWN_MAX else [*passed[: LOADS_DOWN_MAX - 1], passed[-1]]
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
