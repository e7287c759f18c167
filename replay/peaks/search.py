"""The search for the highest load that meets its goals: chooses the next load, and evaluates the trials.

It follows multiple loss ratio search (RFC 9971): all goals are searched at once, each trial counts for every
goal, and a load is an upper bound of a goal if more than half of its trials exceed the goal. This module does
not depend on time, on targets or on how a trial is made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from replay.errors import UsageError

from .watched import Sampled

Verdict = Literal[
    "FOUND", "NO_LIMIT", "FAILS_AT_LOWEST", "GENERATOR_LIMITED", "OUT_OF_TRIALS", "DID_NOT_RECOVER"
]
"""How a search ends. DID_NOT_RECOVER is set by the climb: further trials would be meaningless."""

STEP_UP = 2.0
"""Factor by which the load grows until a goal is missed."""

TRIALS_MAX = 200
"""A search that needs more trials than this is stopped, because its results contradict each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial at a load.

    `passed` says whether each goal was met. `generator_limited`, if not empty, is the reason why the trial does
    not describe the target. Latencies are in nanoseconds, None if there was no response. `rate_per_s` is the
    requested rate, and `done_per_s` is the rate of good responses. `differs_share` is the share of responses
    with a worse status than recorded. `status_failure`, if not empty, is the reason why statuses alone fail
    every goal. `actions` has the requests of each business action, and how many of them failed. `run` is the
    name of the run folder. `watched` has the watched figures by name.
    """

    load: float
    passed: Mapping[str, bool]
    stage: str = "up"
    length_s: float = 0.0
    rate_per_s: float = 0.0
    done_per_s: float = 0.0
    p50_ns: int | None = None
    p99_ns: int | None = None
    failed_share: float = 0.0
    generator_limited: str = ""
    differs_share: float = 0.0
    status_failure: str = ""
    actions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    run: str = ""
    watched: Mapping[str, Sampled] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every goal was met."""
        return all(self.passed.values())


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one goal.

    `upper` is the lowest load that missed the goal (infinite: none). `lower` is the highest load below it that
    met the goal (0: none).
    """

    lower: float
    upper: float


@dataclass(slots=True)
class Search:
    """Chooses loads (`next_load`) and evaluates trials (`add`) until each goal's bounds are known within `width`.

    `width` is relative: upper / lower - 1 at the end. `votes`, an odd number, is the number of trials whose
    majority decides a load. With `each`, the bounds of every goal are searched. Without it, they are searched
    only as far as needed to know where the first goal is missed, so that the target is not loaded beyond that.
    """

    goals: Sequence[str]
    lowest: float
    highest: float
    width: float
    votes: int = 3
    each: bool = True
    trials: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not (
            0 < self.lowest <= self.highest < math.inf and self.width > 0 and self.votes % 2 and self.goals
        ):
            raise UsageError(
                f"a search from {self.lowest:g} to {self.highest:g} within {self.width:g} is not possible",
                hint="give a lowest load above 0, a highest load that is not below it, and a width above 0%",
            )

    def add(self, trial: Trial) -> None:
        """Add a trial at the load that `next_load` chose."""
        self.trials.append(trial)

    def passes(self, load: float, goal: str) -> bool | None:
        """Return the majority of the trials at a load for a goal; None if more trials are needed."""
        results = [trial.passed[goal] for trial in self.trials if trial.load == load]
        if 2 * sum(results) > self.votes:
            return True
        return False if 2 * (len(results) - sum(results)) > self.votes else None

    def bounds(self, goal: str) -> Bounds:
        """Return the current bounds of a goal."""
        loads = sorted({trial.load for trial in self.trials})
        upper = next((load for load in loads if self.passes(load, goal) is False), math.inf)
        lower = max((load for load in loads if load < upper and self.passes(load, goal)), default=0.0)
        return Bounds(lower, upper)

    def next_load(self) -> float | None:
        """Return the load to try next; None once the search has ended (see `verdict`)."""
        if self.verdict() is not None:
            return None
        for goal in self.goals:
            if (load := self._wanted(goal)) is not None:
                return load
        return None

    def _wanted(self, goal: str) -> float | None:
        """Return the load of the next trial that narrows a goal's bounds; None if the goal needs no further trial."""
        bounds = self.bounds(goal)
        if not self.each and bounds.lower >= self.peak().upper:
            return None
        if bounds.lower == 0.0:
            return None if bounds.upper == self.lowest else self.lowest
        if bounds.lower == self.highest or bounds.upper <= bounds.lower * (1 + self.width):
            return None
        begun = [
            trial.load
            for trial in self.trials
            if bounds.lower < trial.load < bounds.upper and self.passes(trial.load, goal) is None
        ]
        if begun:
            return begun[-1]
        if math.isinf(bounds.upper):
            return min(bounds.lower * STEP_UP, self.highest)
        return math.sqrt(bounds.lower * bounds.upper)

    def verdict(self) -> Verdict | None:
        """Return how the search has ended; None while it continues."""
        if self.trials and self.trials[-1].generator_limited:
            return "GENERATOR_LIMITED"
        if any(self.passes(self.lowest, goal) is False for goal in self.goals):
            return "FAILS_AT_LOWEST"
        if all(self._wanted(goal) is None for goal in self.goals):
            return "NO_LIMIT" if math.isinf(self.peak().upper) else "FOUND"
        return "OUT_OF_TRIALS" if len(self.trials) >= TRIALS_MAX else None

    def peak(self) -> Bounds:
        """Return the bounds of all goals together: the lowest `lower` and the lowest `upper` of any goal."""
        found = [self.bounds(goal) for goal in self.goals]
        return Bounds(min(each.lower for each in found), min(each.upper for each in found))

    def contradictions(self) -> list[float]:
        """Return the loads that met every goal although a lower load missed one."""
        upper = self.peak().upper
        loads = sorted({trial.load for trial in self.trials if trial.load > upper})
        return [load for load in loads if all(self.passes(load, goal) for goal in self.goals)]
