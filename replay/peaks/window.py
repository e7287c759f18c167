"""Chooses the part of a recording that the trials of a peak search replay: the busiest part."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from replay import units
from replay.plan.due import (
    Clock,
    DueRows,
    make_clock,
    time_zone,
)
from replay.settings.scenario import Scenario
from replay.trace import DerivedTraceWriter, Trace
from replay.units import SECOND_NS
from replay.workload.transform import Transform, transform
from replay_native.ground.jit import warm

BINS_A_TRIAL = 50
"""Resolution of the search for the busiest part: the number of bins in the length of a trial."""

BINS_MAX = 1 << 23
"""Maximum number of bins. In longer recordings the bins are longer."""

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A window of a recording, and its busiest part, which trials replay.

    Times are in nanoseconds since the epoch. Rates are those of the requests that would be sent, per second of
    the replay, before scaling. `window_times` and `trial_times` are how often each is repeated if the recording
    is too short (1: not repeated). `words` describe both parts for reports.
    """

    from_ns: int
    until_ns: int
    trial_from_ns: int
    trial_until_ns: int
    mean_per_s: float
    trial_per_s: float
    window_times: float = 1.0
    trial_times: float = 1.0
    words: str = ""


def busiest(counts: Int64s, trial: int, window: int) -> tuple[int, int]:
    """Return the start of the busiest `trial` bins, and of the busiest `window` bins that contain them.

    Of equal stretches, the first is chosen.
    """
    sums = np.concatenate([[0], np.cumsum(counts)])
    trial, window = min(trial, len(counts)), min(max(window, trial), len(counts))
    trial_at = int((sums[trial:] - sums[:-trial]).argmax())
    first, last = max(0, trial_at + trial - window), min(trial_at, len(counts) - window)
    around = sums[first + window : last + window + 1] - sums[first : last + 1]
    return trial_at, first + int(around.argmax())


def find_stretch(
    trace: Trace, scenario: Scenario, area: Path, *, trial_ns: int, window_ns: int
) -> Stretch | None:
    """Find the busiest stretch of the scenario's window; None if nothing in the window would be sent.

    If only the start of the window is given, the stretch begins there. `area` is a folder for temporary traces.
    The lengths are those of the replay: at twice the speed a window of the recording is twice as long.
    """
    scenario = msgspec.structs.replace(scenario, rate_per_s=None, duration_ns=None)
    zone = time_zone(trace, scenario)
    clock = make_clock(trace, scenario, zone)
    bounds = min(clock.until_ns, trace.end_ns + 1) - clock.origin_ns
    if scenario.window.from_ is not None and scenario.window.until is None:
        bounds = min(bounds, round(window_ns * clock.speed))
    bin_ns = max(-(-trial_ns // BINS_A_TRIAL), round(bounds / clock.speed) // BINS_MAX, 1)
    counts = _counts(_kept(trace, scenario, area), clock, scenario, bin_ns, bounds)
    if not counts.any():
        return None
    trial, window = max(1, round(trial_ns / bin_ns)), max(1, round(window_ns / bin_ns))
    trial_at, window_at = busiest(counts, trial, window)
    recorded_bin_ns = bin_ns * clock.speed

    def moments(begin: int, length: int) -> tuple[int, int, float]:
        """Return the first and last time of a number of bins, and their rate."""
        from_ns = clock.origin_ns + round(begin * recorded_bin_ns)
        until_ns = min(from_ns + round(length * recorded_bin_ns), clock.origin_ns + bounds)
        rows = int(counts[begin : begin + length].sum())
        return from_ns, until_ns, rows * SECOND_NS * clock.speed / (until_ns - from_ns)

    from_ns, until_ns, mean_per_s = moments(window_at, max(window, trial))
    trial_from_ns, trial_until_ns, trial_per_s = moments(trial_at, trial)
    found = Stretch(
        from_ns=from_ns, until_ns=until_ns, trial_from_ns=trial_from_ns, trial_until_ns=trial_until_ns,
        mean_per_s=mean_per_s, trial_per_s=trial_per_s,
        window_times=_times(window_ns * clock.speed, until_ns - from_ns),
        trial_times=_times(trial_ns * clock.speed, trial_until_ns - trial_from_ns),
    )  # fmt: skip
    return replace(found, words=_words(found, zone))


def _times(wanted_ns: float, there_ns: int) -> float:
    """Return how often a stretch is repeated. A difference of one bin is not a repetition."""
    times = wanted_ns / max(there_ns, 1)
    return 1.0 if times <= 1 + 1 / BINS_A_TRIAL else round(times, 3)


def _kept(trace: Trace, scenario: Scenario, area: Path) -> Trace:
    """Return the trace with only the routes that the scenario keeps."""
    if not (scenario.only or scenario.without):
        return trace
    wanted = Transform(only=scenario.only, without=scenario.without)
    return transform(trace, area / "kept.trace", wanted)


def _counts(trace: Trace, clock: Clock, scenario: Scenario, bin_ns: int, bounds_ns: int) -> Int64s:
    """Count the requests that would be sent, in bins of replay time."""
    warm(["plan.survey"])
    length_ns = max(round(bounds_ns / clock.speed), 1)
    counts = np.zeros(-(-length_ns // bin_ns), np.int64)
    for batch in DueRows(trace, clock, scenario).batches():
        places = batch.due_ns // bin_ns
        begin, end = int(np.searchsorted(places, 0)), int(np.searchsorted(places, len(counts)))
        if begin == end:
            break
        first = int(places[begin])
        found = np.bincount(places[begin:end] - first)
        counts[first : first + len(found)] += found
    return counts


def cut(trace: Trace, out: Path, from_ns: int, until_ns: int, length_ns: int) -> Trace:
    """Write the events between two times as a new trace, repeated until it is `length_ns` long."""
    change = {"transform": "window", "from_ns": from_ns, "until_ns": until_ns}
    with DerivedTraceWriter(out, trace, [change]) as writer:
        for later_ns in _offsets(trace, from_ns, until_ns, length_ns):
            for batch in trace.batches(from_ns, min(until_ns, from_ns + length_ns - later_ns)):
                writer.add_batch(batch, later_ns=later_ns, in_order=True)
    assert writer.trace is not None
    return writer.trace


def _offsets(trace: Trace, from_ns: int, until_ns: int, length_ns: int) -> Iterator[int]:
    """Yield the start of each repetition, as an offset.

    Between repetitions of the whole recording the gap is the mean gap between requests.
    """
    first_ns = last_ns = None
    rows = 0
    for batch in trace.batches(from_ns, until_ns):
        first_ns = int(batch.at_ns[0]) if first_ns is None else first_ns
        last_ns, rows = int(batch.at_ns[-1]), rows + len(batch)
    if first_ns is None or last_ns is None:
        return
    whole = first_ns <= trace.start_ns and last_ns >= trace.end_ns
    gap_ns = (last_ns - first_ns) // max(rows - 1, 1) if rows > 1 else SECOND_NS
    period_ns = max(last_ns - first_ns + gap_ns if whole else until_ns - from_ns, 1)
    yield from range(0, max(length_ns, 1), period_ns)


def _words(found: Stretch, zone: dt.tzinfo) -> str:
    """Describe the window and its busiest part, for reports."""

    def span(from_ns: int, until_ns: int) -> str:
        length = units.format_duration(until_ns - from_ns)
        return f"{length} from {units.format_moment(from_ns, zone)}"

    def rate(per_s: float, times: float) -> str:
        repeated = f", repeated {times:.3g} times" if times > 1 else ""
        return f"{units.format_rate(per_s)}{repeated}"

    trial = (
        f"trials run the busiest {span(found.trial_from_ns, found.trial_until_ns)}"
        f" ({rate(found.trial_per_s, found.trial_times)})"
    )
    window = f"the hold {span(found.from_ns, found.until_ns)} ({rate(found.mean_per_s, found.window_times)})"
    return f"{trial}; {window}, scaled to the same mean rate"
