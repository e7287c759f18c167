"""Runs trials against a real target: replays the trace at a scale, and judges the run by the scenario's objectives."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from replay import units
from replay.engine.blocking import run_blocking
from replay.engine.prepare import Prepared, find_targets, prepare
from replay.engine.sinks import Sink
from replay.errors import RefusedError, UsageError
from replay.ledger.catalog import GOOD
from replay.ledger.statuses import ACCEPT, FAILED_SHARE, SUSPECT_SHARE
from replay.plan.due import Clock, make_clock, time_zone
from replay.plan.schedule import make_schedules
from replay.results import slo
from replay.results.document import RunDocument
from replay.results.run import Run, load_run
from replay.settings.kinds import (
    Duration,
    Factor,
    Rate,
    Scale,
    SloText,
)
from replay.settings.scenario import Scenario, Window
from replay.trace import Trace
from replay.trace.actions import with_actions
from replay.workload.rules import classes_of
from replay.workload.surge import surge

from .actions import load_words
from .recovery import (
    WATCH_TIMES,
    Moment,
    Recovery,
    judge,
)
from .search import Trial
from .watched import sampled_in
from .window import Stretch, cut, find_stretch

GOALS = (SloText("errors<0.1%"), SloText("errors<1%"))
"""The objectives if the scenario has none."""

PAUSE_S = 0.5
"""Pause between two trials in seconds. There is none on the way down, nor before a trial is repeated."""

SAME_RATE, SCALINGS_MAX = 0.005, 4
"""How exactly a hold's scale is searched.

SAME_RATE is the tolerance on a hold's mean rate relative to that of the trial at its load. SCALINGS_MAX is the
number of attempts.
"""

PROBE_SHARE, PROBE_REQUESTS = 0.1, 30
"""A probe lasts until PROBE_REQUESTS are sent, but at least PROBE_SHARE of a trial's length and at most its length."""


RunTrial = Callable[[Prepared, Path], RunDocument]
"""Runs a prepared trial, into a new folder."""


def run_here(sinks: Sequence[Sink], prepared: Prepared, folder: Path) -> RunDocument:
    """Run a trial in this process."""
    return prepared.run(folder, sinks=sinks)


def at_load(scenario: Scenario, load: float, *, rest: bool = True) -> Scenario:
    """Return a scenario whose peak, constant rate or factors are `load` times as high.

    With `rest`, routes without a factor in the scenario are scaled by `load`, too.
    """
    if scenario.rate_per_s is not None:
        return msgspec.structs.replace(scenario, rate_per_s=Rate(scenario.rate_per_s * load))
    if scenario.peak_per_s is not None:
        return msgspec.structs.replace(scenario, peak_per_s=Rate(scenario.peak_per_s * load))
    return msgspec.structs.replace(scenario, scale=_scaled(scenario.scale, load, rest))


def _scaled(scale: Scale, load: float, rest: bool) -> Scale:
    if scale and not scale[0][0]:
        return Scale([("", scale[0][1] * load)])
    rules = [(route, factor * load) for route, factor in scale]
    if not rules:
        return Scale([("", load)])
    return Scale([*rules, ("*", load)] if rest else rules)


class Bench:
    """Runs trials: run folders `NNN-STAGE-LOAD` in `folder`, each with a different seed.

    Trials replay the busiest part of `stretch`. Holds replay all of it, scaled so that its mean rate is that of
    the trial at the same load. Derived traces are written into the folder `area`.
    """

    def __init__(
        self, trace: Trace, scenario: Scenario, folder: Path, area: Path, *, trial_ns: int, hold_ns: int,
        run: RunTrial | None = None,
    ) -> None:  # fmt: skip
        """Use `run` to run a trial into a new folder; without it, trials run in this process.

        Raise UsageError if the scenario is a closed loop, which has no load to scale.
        """
        if scenario.closed_loop:
            raise UsageError(
                "a closed loop has no load to scale", hint="give a trace and leave out --rate max"
            )
        trace = with_actions(trace, scenario.actions)
        self._trace, self._folder, self._area = trace, folder, area
        self._run = run or partial(run_here, ())
        self.each = not scenario.slo
        self._given = msgspec.structs.replace(scenario, slo=scenario.slo or GOALS)
        self._hold_ns, self._trial_ns, self._number, self._lowest_per_s = hold_ns, trial_ns, 0, 0.0
        self._baseline: tuple[float, float] | None = None
        self._accepts_statuses = any(slo.replaces_status_rule(slo.parse(str(text))) for text in scenario.slo)
        self.stretch: Stretch | None = None

    def prepare(self) -> Stretch:
        """Find the stretch, and cut it out of the trace. Raise UsageError if none of it would be sent."""
        window_ns = max(self._hold_ns, self._trial_ns)
        speed = self._clock().speed
        found = find_stretch(
            self._trace, self._given, self._area, trial_ns=self._trial_ns, window_ns=window_ns
        )
        if found is None:
            make_schedules(
                self._trace, msgspec.structs.replace(self._given, duration_ns=None), area=self._area
            )
            raise UsageError(
                "nothing in the window would be sent",
                hint="give another --from, or filters that leave more requests",
            )
        made = {
            "trial": (found.trial_from_ns, found.trial_until_ns, self._trial_ns),
            "hold": (found.from_ns, found.until_ns, window_ns),
        }
        self._parts = {
            name: cut(self._trace, self._area / f"{name}.trace", from_ns, until_ns, round(length_ns * speed))
            for name, (from_ns, until_ns, length_ns) in made.items()
        }
        self._scenario = msgspec.structs.replace(
            self._given, window=Window(tz=self._given.window.tz), speed=Factor(speed), compress_to_ns=None
        )
        patterns = [route for route, _ in self._given.scale]
        self._rest = not patterns or bool((classes_of(self._trace.requests, patterns, "--scale") < 0).any())
        self._rates: dict[float, float] = {}
        self.stretch = found
        return found

    def _clock(self) -> Clock:
        return make_clock(self._trace, self._given, time_zone(self._trace, self._given))

    @property
    def goals(self) -> list[str]:
        """The objectives by which every trial is judged."""
        return [str(text) for text in self._given.slo]

    def __call__(self, load: float, stage: str) -> Trial:
        """Run a trial, and repeat it once if the generator limited it, unless it is a probe.

        The cause may have been a passing disturbance of this machine. Raise KeyboardInterrupt if the run was
        interrupted.
        """
        if self.stretch is None:
            self.prepare()
        if stage != "down" and self._number:
            time.sleep(PAUSE_S)
        trial = self._trial(load, stage)
        if trial.generator_limited and stage != "probe":
            trial = self._trial(load, stage)
        self._lowest_per_s = self._lowest_per_s or trial.rate_per_s
        return trial

    def _refuse_baseline(self, run: Run, until_ns: int) -> None:
        """Raise RefusedError if most responses of the baseline are worse than recorded.

        Such a target would seem to survive any surge. An objective on statuses may accept such responses.
        """
        share = _baseline_share(run, until_ns / units.SECOND_NS)
        if share > FAILED_SHARE and not self._accepts_statuses:
            raise RefusedError(
                f"before the surge, {units.format_share(share)} of the responses were already worse than recorded",
                hint=f"check the target, its data and credentials, or accept it: {ACCEPT}",
            )

    def _length_ns(self, stage: str) -> int:
        """Return the length of a trial in this stage."""
        if stage != "probe":
            return self._hold_ns if stage == "hold" else self._trial_ns
        least_ns = PROBE_REQUESTS / max(self._lowest_per_s, 1e-3) * units.SECOND_NS
        return min(self._trial_ns, round(max(PROBE_SHARE * self._trial_ns, least_ns)))

    def _trial(self, load: float, stage: str) -> Trial:
        self._number += 1
        folder = self._folder / f"{self._number:03}-{stage}-{load:.4g}"
        area = folder.with_name(f".{folder.name}")
        area.mkdir(parents=True)
        try:
            prepared = self._prepared(load, stage, area)
            document = self._run(prepared, folder)
        finally:
            shutil.rmtree(area, ignore_errors=True)
        if document.ending.how == "interrupted":
            raise KeyboardInterrupt
        judged = _judged(document, load, stage, self._status_failure(document, load))
        trial = replace(judged, rate_per_s=_rate(prepared), run=folder.name)
        if stage != "hold":
            self._rates.setdefault(load, trial.rate_per_s)
        return trial

    def _prepared(self, load: float, stage: str, area: Path) -> Prepared:
        """Prepare the run of a trial.

        A hold is scaled to the mean rate of the trial at its load, however busy the rest of the window is.
        """
        part = self._parts["hold" if stage == "hold" else "trial"]
        factor = load
        found = run_blocking(partial(find_targets, self._scenario))
        for attempt in range(SCALINGS_MAX):
            scenario = msgspec.structs.replace(
                at_load(self._scenario, factor, rest=self._rest),
                duration_ns=Duration(self._length_ns(stage)),
                seed=self._scenario.seed + self._number,
            )
            place = area / str(attempt)
            place.mkdir()
            prepared = prepare(part, scenario, name=str(self._trace.path), area=place, found=found)
            wanted, planned = self._rates.get(load), _rate(prepared)
            if stage != "hold" or not wanted or not planned or abs(planned / wanted - 1) <= SAME_RATE:
                break
            factor *= wanted / planned
        return prepared

    def _status_failure(self, document: RunDocument, load: float) -> str:
        """Return why a trial has failed by its statuses; empty if it has not.

        Trials at the first load are the baseline, which is judged like any run. The target refuses the same requests
        at any load. Therefore a trial at another load has failed if its share is higher by more than SUSPECT_SHARE, and
        no objective accepts such statuses.
        """
        differs = document.status_differs
        share = differs.share if differs is not None else 0.0
        if self._baseline is None:
            self._baseline = load, share
        if load == self._baseline[0]:
            is_failed = differs is not None and differs.failed
        else:
            is_failed = share > self._baseline[1] + SUSPECT_SHARE and not self._accepts_statuses
        return f"{units.format_share(share)} of the responses are worse than recorded" if is_failed else ""

    @property
    def load_words(self) -> str:
        """What load 1 is, in words: `last Monday`, or `the load of the scenario`."""
        at_ns = self._clock().origin_ns if self.stretch is None else self.stretch.from_ns
        return load_words(self._given, at_ns, time_zone(self._trace, self._given), time.time_ns())

    def run_of(self, name: str) -> Run:
        """Return the run of a trial, by the name of its folder."""
        return load_run(self._folder / name)

    def surge(self, factor: float, trigger_ns: int) -> Recovery:
        """Make one run of three parts: the baseline, a surge of `factor` times the load, and the baseline again.

        The first two last `trigger_ns`, and the last one WATCH_TIMES as long. Raise InputError if the trace is too
        short, and RefusedError if most responses of the first part are worse than recorded. The verdict is UNKNOWN
        if the run is INVALID.
        """
        folder, area = self._folder / "surge", self._area / "surge"
        scenario = msgspec.structs.replace(
            self._given, breaker=msgspec.structs.replace(self._given.breaker, on=False)
        )
        speed = self._clock().speed
        length_ns = round(trigger_ns * speed)
        whole_ns = (2 + WATCH_TIMES) * trigger_ns
        found = find_stretch(self._trace, self._given, self._area, trial_ns=whole_ns, window_ns=whole_ns)
        latest_ns = self._trace.end_ns + 1 - (2 + WATCH_TIMES) * length_ns
        start_ns = self._clock().origin_ns
        if found is not None and latest_ns >= start_ns:
            start_ns = min(found.trial_from_ns, latest_ns)
        moment = units.format_moment(start_ns, time_zone(self._trace, self._given))
        area.mkdir(parents=True)
        made = surge(
            self._trace, area / "surge.trace", factor, start_ns=start_ns, from_ns=start_ns + length_ns,
            until_ns=start_ns + 2 * length_ns, end_ns=start_ns + (2 + WATCH_TIMES) * length_ns,
            seed=scenario.seed,
        )  # fmt: skip
        scenario = msgspec.structs.replace(
            scenario,
            window=Window(tz=scenario.window.tz),
            speed=Factor(speed),
            compress_to_ns=None,
            duration_ns=None,
        )
        document = self._run(prepare(made, scenario, name=str(self._trace.path), area=area), folder)
        if document.ending.how == "interrupted":
            raise KeyboardInterrupt
        run = load_run(folder)
        self._refuse_baseline(run, trigger_ns)
        result = judge(moments(run), trigger_ns / units.SECOND_NS, 2 * trigger_ns / units.SECOND_NS)
        verdict = "UNKNOWN" if document.validity.verdict == "INVALID" else result.verdict
        return replace(
            result, verdict=verdict, from_ns=start_ns, window=f"it begins at {moment} of the recording"
        )


def _rate(prepared: Prepared) -> float:
    """Return the planned mean rate over all targets and the whole length of a trial."""
    rows = sum(plan.rows or 0 for plan in prepared.plans)
    return rows * units.SECOND_NS / max(prepared.scenario.duration_ns or 0, 1)


def _baseline_share(run: Run, until_s: float) -> float:
    """Return the share of the baseline's requests whose response is worse than recorded.

    If the recorded status is not known, a 4xx counts as worse.
    """
    rows = [row for row in run.seconds() if row.t_s + row.length_s <= until_s]
    differs = sum(row.status_worse + row.unknown_4xx for row in rows)
    return differs / max(1, sum(row.ok + row.error + row.timeout for row in rows))


def moments(run: Run) -> list[Moment]:
    """Return the moments of a run, one for each second.

    A response counts as failed if it is a 5xx, if it is worse than recorded, or if it is a 4xx and the recorded status
    is not known.
    """
    found = []
    for row in run.seconds():
        failed = row.outcomes.get("5xx", 0) + row.status_worse + row.unknown_4xx
        found.append(
            Moment(
                row.t_s,
                row.ok - failed,
                row.error + row.timeout + row.unsent + failed,
                row.response_p50_ns,
                row.in_flight,
            )
        )
    return found


def _judged(document: RunDocument, load: float, stage: str, status_failure: str) -> Trial:
    """Return the result of a run as a trial.

    A run that ended early, or that failed by its statuses, has met no objective.
    """
    whole = document.ending.how == "whole"
    response, accounts = document.latency.response, document.accounts
    failed = (
        accounts.error
        + accounts.timeout
        + accounts.unsent
        + document.accounts_detail.status_class.get("5xx", 0)
    )
    good = sum(document.accounts_detail.status_class.get(name, 0) for name in GOOD)
    invalid = document.validity.verdict == "INVALID"
    return Trial(
        load=load,
        passed={outcome.slo: outcome.passed and whole and not status_failure for outcome in document.slo},
        stage=stage,
        length_s=document.duration_s,
        done_per_s=good / max(document.duration_s, 1e-9),
        p50_ns=response.p50_ns if isinstance(response, msgspec.Struct) else None,
        p99_ns=response.p99_ns if isinstance(response, msgspec.Struct) else None,
        failed_share=failed / max(accounts.planned, 1),
        differs_share=document.status_differs.share if document.status_differs else 0.0,
        status_failure=status_failure,
        generator_limited="; ".join(reason.message for reason in document.validity.reasons)
        if invalid
        else "",
        actions={}
        if document.business is None
        else {one.action: (one.requests, one.failed) for one in document.business.actions},
        watched=sampled_in(document),
    )
