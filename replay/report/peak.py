"""Texts about the results of a search for the peak or a surge, for the terminal and the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console

from replay.ledger.statuses import STATUS_DIFFERS, SUSPECT_SHARE
from replay.peaks.climb import Climb
from replay.peaks.recovery import Recovery
from replay.results.notes import rejected_words
from replay.settings.bare_times import bare_time_notes
from replay.settings.scenario import Scenario
from replay.trace import Manifest
from replay.units import counted, format_duration, format_latency, format_rate, format_share

from .facts import reasons
from .page import Page
from .peak_trials import TRIAL_HEADS, in_order, trial_cells
from .peak_watched import print_watched, watched_facts


def rate_at(found: Climb, load: float) -> str:
    """Return the median rate of the trials at a load; `-` if there was none."""
    rates = [trial.rate_per_s for trial in found.trials if trial.load == load]
    return format_rate(median(rates)) if rates else "-"


def climb_facts(found: Climb) -> list[tuple[str, str]]:
    """Return the results of a search as (name, words) pairs."""
    facts = [] if found.window is None else [("window", found.window.words)]
    if not math.isinf(found.above):
        facts.append(("missed at", f"{found.above:.3g} times, {rate_at(found, found.above)}"))
    if found.held is not None:
        facts.append(("held", _held(found)))
    for number, hold in enumerate(found.actions):
        facts.append(("actions" if number == 0 else "", hold.words))
    if found.hysteresis is not None:
        lower = format_share(found.hysteresis)
        facts.append(
            ("hysteresis", f"{lower} below the peak on descending load" if found.hysteresis else "none")
        )
    if found.recovery != "UNKNOWN":
        after_s = found.recovered_after_s
        after = "" if after_s is None else f" after {after_s:.1f} s" if after_s else " at once"
        facts.append(("overload", found.recovery + after))
    slow = [cool_down for cool_down in found.cool_downs if cool_down.took_s]
    if slow:
        slowest = max(slow, key=lambda cool_down: cool_down.took_s or 0.0)
        facts.append(
            ("cool-down", f"up to {slowest.took_s:.1f} s, after a trial at {slowest.load:.3g} times")
        )
    baseline = next((trial for trial in found.trials if trial.differs_share > SUSPECT_SHARE), None)
    if baseline is not None and baseline is found.trials[0]:
        share = format_share(baseline.differs_share)
        facts.append(
            (STATUS_DIFFERS, f"{share} of the responses are worse than recorded at the lowest load already")
        )
    if found.contradictions:
        loads = ", ".join(f"{load:.3g}" for load in found.contradictions)
        facts.append(
            (
                "contradictions",
                f"objectives were met at {loads} again, although a lower load missed them",
            )
        )
    return [*facts, *watched_facts(found)]


def _held(found: Climb) -> str:
    if found.held:
        return "yes"
    only = "no: the peak met the objectives only for the length of a trial"
    tried = [trial.load for trial in found.trials if trial.stage == "hold"]
    if found.held_load is not None:
        return f"{only}; {found.held_load:.3g} times, {rate_at(found, found.held_load)}, was held"
    return only if len(tried) == 1 else f"{only}, and {tried[-1]:.3g} times was not held either"


def surge_facts(found: Recovery, times: float, trigger_ns: int) -> list[tuple[str, str]]:
    """Return the results of a surge as (name, words) pairs."""
    facts = [
        ("surge", f"{times:g} times the baseline for {format_duration(trigger_ns)}"),
        ("baseline", f"p50 {format_latency(found.baseline_p50_ns)}"),
    ]
    if found.window:
        facts.append(("window", found.window))
    if found.verdict == "UNKNOWN":
        why = "too few responses before the surge to know the baseline"
        return [*(fact for fact in facts if fact[0] != "baseline"), ("verdict", f"UNKNOWN: {why}")]
    if found.verdict == "UNSTEADY":
        slower = (
            "the target became slower even before the surge (replay peak finds the load that it sustains)"
        )
        return [*facts, ("verdict", f"UNSTEADY: {slower}")]
    harm = f"{found.bad_s:.0f} s differed from the baseline"
    if found.suffered:
        harm += f", with {counted(found.suffered, 'request')}"
    recovered = found.after_s is not None and found.verdict != "NOT_HARMED"
    after = f" {found.after_s:.0f} s after the surge" if recovered else ""
    return [
        *facts,
        ("harm", harm),
        ("failed", f"{counted(found.failed, 'request')} since the surge began"),
        ("verdict", found.verdict + after),
    ]


def recording_facts(manifest: Manifest, scenario: Scenario) -> list[tuple[str, str]]:
    """Return facts about the recording: rejected lines, and times without a unit."""
    lines, rejected = manifest.unread()
    unread = rejected_words(sum(rejected.values()), lines)
    return [
        *([("recording", unread + reasons(rejected))] if unread else []),
        *(("note", note) for note in bare_time_notes(scenario)),
    ]


def print_climb(
    found: Climb, sentence: str, before: Sequence[tuple[str, str]], folder: Path, console: Console
) -> None:
    """Print the results of a search: the sentence, `before`, the trials, watched figures, facts, the sentence again."""
    page = Page(console)
    page.say(sentence, "bold")
    page.say()
    page.facts(before)
    page.say()
    heads = [(name, "right") for name in TRIAL_HEADS[1:-1]]
    page.table(
        [("", ""), *heads, (TRIAL_HEADS[-1], "text")],
        [trial_cells(trial) for trial in in_order(found.trials)],
    )
    print_watched(page, found)
    page.say()
    page.facts(climb_facts(found))
    page.say()
    page.say(f"{found.verdict}: {sentence}", "bold")
    page.say(f"charts: {folder / 'peak.html'}", indent=2)


def print_surge(
    found: Recovery,
    times: float,
    trigger_ns: int,
    before: Sequence[tuple[str, str]],
    after: Sequence[tuple[str, str]],
    folder: Path,
    console: Console,
) -> None:
    """Print the surge and its effects, with the verdict first.

    The facts in `before` are printed above those of the surge, the facts in `after` below them.
    """
    page = Page(console)
    facts = surge_facts(found, times, trigger_ns)
    page.say(found.verdict, "bold")
    page.say()
    page.facts([*before, *facts, *after])
    page.say(f"charts: {folder / 'peak.html'}", indent=2)
