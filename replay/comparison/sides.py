"""Loads the two sides of a comparison: run folders by their totals.hlog, or any .hlog file."""

from __future__ import annotations

import contextlib
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from replay.errors import InputError, UsageError
from replay.ledger.histogram import Histogram
from replay.results import hlog
from replay.results.document import RunDocument
from replay.results.measured import Measured, Value
from replay.results.notes import rejected_words
from replay.results.run import load_run
from replay.results.timeline import Second

from .set_aside import why_set_aside

UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
LOGGED = "logged"
"""The outcome of all values in a log of another program, because such logs do not record how requests ended."""

_LABEL = re.compile(r"[^/\\=,.][^/\\=,]*")
_NEVER = 1 << 62
_JUMP_S = 1.0
_EPOCH_MIN_S, _EPOCH_MAX_S = 1e8, 9e9
"""Timestamps in this range (1973 to 2255) are seconds since the epoch. Smaller ones count from the start of a run or of
a machine."""


@dataclass(frozen=True)
class SideRun:
    """One run of a side.

    `document` is None for a log, and `logged_ns` its start and end. Values times `scale` are in ns. `doubts` are
    reasons why the run may be incomplete. `given` is the number of the path on the command line that contains the
    run. `seconds` reads its timeline; a log has none.
    """

    name: str
    measured: Measured
    document: RunDocument | None = None
    scale: int = 1
    counts_errors: bool = True
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    requests: Mapping[str, int] = field(default_factory=dict)
    logged_ns: tuple[int, int] | None = None
    given: int = 0
    seconds: Callable[[], list[Second]] = list

    @functools.cached_property
    def started_ns(self) -> int | None:
        """When the run started, in ns since the epoch; None if unknown."""
        if self.document is not None:
            return self.document.start.wall_ns
        return None if self.logged_ns is None else self.logged_ns[0]

    @property
    def ended_ns(self) -> int | None:
        """When the run ended, in ns since the epoch; None if unknown."""
        if self.document is not None:
            return self.document.start.wall_ns + round(max(self.document.ending.at_s, 0.0) * 1e9)
        return None if self.logged_ns is None else self.logged_ns[1]

    def quantile(self, kind: str, percentile: float, route: str = "") -> Value | None:
        """Return the value at `percentile` in ns; None if nothing was measured."""
        found = self.measured.percentiles(kind, (percentile,), route)
        return Value(found[0].ns * self.scale, found[0].at_least) if found else None

    def count(self, kind: str, route: str = "") -> int:
        """Return the number of requests in this latency's histogram."""
        histogram = self.measured.histogram(kind, route)
        return histogram.count if histogram is not None else 0


@dataclass(frozen=True)
class Side:
    """The runs of one build.

    `set_aside` lists given runs that are not compared.
    """

    label: str
    runs: tuple[SideRun, ...]
    set_aside: tuple[str, ...] = ()


def load_sides(
    base: str, new: str, unit: str = "", folder: Callable[[Path], SideRun] | None = None
) -> tuple[Side, Side]:
    """Load both sides from `[LABEL=]PATH[,PATH...]`; the labels `base` and `new` decide which side is which.

    `folder` reads the folder of a run [default: `load_run_folder`]. Raise UsageError for an invalid argument, if a run
    is given twice, or if the unit of a log is unknown. Raise InputError if a path has no runs, if all runs of a side
    were set aside, or if a run or log cannot be used.
    """
    one, two = (_split(text, label) for text, label in ((base, "base"), (new, "new")))
    if (one[0], two[0]) == ("new", "base"):
        one, two = two, one
    if one[0] == two[0]:
        raise UsageError(f"both sides are called {one[0]!r}", hint="name them: base=PATH new=PATH")
    return sides_of(*one, *two, unit, folder)


def sides_of(
    label: str,
    paths: Sequence[Path],
    other_label: str,
    other_paths: Sequence[Path],
    unit: str = "",
    folder: Callable[[Path], SideRun] | None = None,
) -> tuple[Side, Side]:
    """Load two sides with these labels and paths. Raise the errors of `load_sides`."""
    sides = tuple(
        _side(name, given, unit, folder) for name, given in ((label, paths), (other_label, other_paths))
    )
    seen: dict[Path, str] = {}
    for side in sides:
        for run in side.runs:
            path = Path(run.name).resolve()
            if path in seen:
                raise UsageError(
                    f"{run.name} is given twice ({seen[path]}, {side.label})", hint="give each run only once"
                )
            seen[path] = side.label
    return sides[0], sides[1]


def load_side(text: str, default: str, folder: Callable[[Path], SideRun] | None = None) -> Side:
    """Load one side from `[LABEL=]PATH[,PATH...]`. Raise the errors of `load_sides`, except for a run given twice."""
    label, paths = _split(text, default)
    return _side(label, paths, "", folder)


def _side(
    label: str, paths: Sequence[Path], unit: str, folder: Callable[[Path], SideRun] | None = None
) -> Side:
    """Load the runs at these paths.

    Runs that `replay ab` repeated are left out. Raise InputError if no other run remains.
    """
    runs, left_out = [], []
    for at, path in enumerate(paths):
        for run in _load(path, unit, folder):
            why = why_set_aside(Path(run.name)) if run.document is not None else ""
            if why:
                left_out.append(f"{run.name} ({label}) is left out: `replay ab` set it aside ({why})")
            else:
                runs.append(replace(run, given=at))
    if left_out and not runs:
        raise InputError(
            f"no run of {label} remains: {'; '.join(left_out)}",
            hint="give the other runs of its folder",
        )
    return Side(label, tuple(runs), tuple(left_out))


def _split(text: str, default: str) -> tuple[str, list[Path]]:
    label, paths = default, text
    head, equals, tail = text.partition("=")
    if equals and _LABEL.fullmatch(head) and not Path(text).exists():
        label, paths = head.strip(), tail
    names = [paths] if paths and Path(paths).exists() else [name for name in paths.split(",") if name]
    if not names:
        raise UsageError(
            f"{text!r} lists no runs",
            hint="give a run folder, a folder of runs, or .hlog files: base=A,B,C",
        )
    return label, [Path(name) for name in names]


def _load(path: Path, unit: str, folder: Callable[[Path], SideRun] | None = None) -> list[SideRun]:
    folder = folder or load_run_folder
    if not path.exists():
        raise InputError(f"{path} does not exist", hint="give a run folder, a folder of runs, or .hlog files")
    if not path.is_dir():
        return [_from_log(path, unit)]
    if _is_run(path):
        return [folder(path)]
    found = [child for child in sorted(path.iterdir()) if _is_run(child) or child.suffix == ".hlog"]
    if not found:
        raise InputError(
            f"{path} holds no runs: neither a run.json, nor folders of runs, nor .hlog files",
            hint="give the folder that `replay run -o` wrote, or a folder with several of them",
        )
    return [folder(child) if child.is_dir() else _from_log(child, unit) for child in found]


def _is_run(path: Path) -> bool:
    return path.is_dir() and ((path / "run.json").exists() or (path / "started.json").exists())


def load_run_folder(path: Path) -> SideRun:
    """Load a run folder of `replay run`. Raise InputError if it is invalid."""
    run = load_run(path)
    document = run.document
    doubts = []
    if document.ending.how not in ("whole", "circuit_breaker"):
        doubts.append(f"{path} did not end normally ({document.ending.how})")
    notes = [f"{path} is SUSPECT: {', '.join(reason.code for reason in document.validity.reasons)}"]
    if document.validity.verdict != "SUSPECT":
        notes = []
    if document.trace is not None and document.trace.rejected:
        notes.append(rejected_words(sum(document.trace.rejected.values()), document.trace.lines))
    requests = {route.route: route.count for route in document.routes}
    return SideRun(
        str(path),
        replace(run.measured, totals=functools.cache(run.measured.totals)),
        document,
        doubts=tuple(doubts),
        notes=tuple(notes),
        requests=requests,
        seconds=run.seconds,
    )


def load_without_latencies(path: Path) -> SideRun:
    """Load a run for callers that read only its document. Raise InputError if it is invalid."""
    return SideRun(str(path), Measured(lambda tag: None, {}, _NEVER), load_run(path).document)


def _from_log(path: Path, unit: str) -> SideRun:
    log = hlog.read_hlog(path)
    unit = log.unit or unit
    if not unit:
        raise UsageError(
            f"{path} does not state the unit of its values", hint="give it with --unit ns, us, ms or s"
        )
    if unit not in UNITS:
        raise UsageError(f"--unit: {unit!r} is not a unit", hint="give ns, us, ms or s")
    doubts = []
    if log.problem_count:
        doubts.append(f"lines that were left out: {log.problem_count:,} ({log.problems[0]})")
    notes = _clock_notes(log)
    histograms = log.by_tag()
    if not any(histogram.count for histogram in histograms.values()):
        raise InputError(
            f"{path} holds only empty histograms", hint="it contains no measurements; leave this run out"
        )
    ours = "response.all" in histograms or "service.all" in histograms
    table, outcomes = _ours(histograms) if ours else _theirs(histograms)
    measured = Measured(table.get, outcomes, _NEVER)
    requests = {route: sum(by_outcome.values()) for route, by_outcome in outcomes.items() if route}
    return SideRun(
        str(path), measured, None, UNITS[unit], ours, tuple(doubts), tuple(notes), requests, _times(log)
    )


def _times(log: hlog.Log) -> tuple[int, int] | None:
    """Return the start and end of a log, in ns since the epoch; None if its reference time is unknown."""
    first = log.start_s if log.start_s is not None else log.intervals[0].start_s
    if not _EPOCH_MIN_S <= first < _EPOCH_MAX_S:
        return None
    ends = [row.start_s + row.length_s for row in log.intervals if abs(row.length_s) < _EPOCH_MIN_S]
    last = max([first, *(end for end in ends if end < _EPOCH_MAX_S)])
    return round(first * 1e9), round(last * 1e9)


def _clock_notes(log: hlog.Log) -> list[str]:
    """Return a note if the clock jumped back. The totals are correct then, but the log's time axis is not."""
    last: dict[str, float] = {}
    jumps = 0
    for interval in log.intervals:
        before = last.get(interval.tag, -math.inf)
        jumps += interval.start_s < before - _JUMP_S or interval.length_s < 0
        last[interval.tag] = interval.start_s
    return [f"{log.path}: lines at which time goes back: {jumps:,}; the totals are correct"] if jumps else []


_Log = tuple[dict[str, Histogram], dict[str, dict[str, int]]]


def _ours(histograms: dict[str, Histogram]) -> _Log:
    """Return the histograms of a log that replay wrote, and the counts by route and outcome, from its tags."""
    outcomes: dict[str, dict[str, int]] = {}
    for tag, histogram in histograms.items():
        kind, outcome, route = hlog.parts_of(tag)
        if route and histogram.count and (kind == "response" or "response.all" not in histograms):
            by_outcome = outcomes.setdefault(route, {})
            by_outcome[outcome] = max(by_outcome.get(outcome, 0), histogram.count)
    return histograms, outcomes


def _theirs(histograms: dict[str, Histogram]) -> _Log:
    """Return the histograms of another program's log, and the counts by route.

    A tag is a route, and lines without a tag cover all routes. If every line has a tag, the sum over the tags covers
    all routes; there is no such sum if the histograms cannot be merged.
    """
    table: dict[str, Histogram] = {}
    outcomes: dict[str, dict[str, int]] = {}
    for tag, histogram in histograms.items():
        if tag:
            table[hlog.tag_of("response", tag, LOGGED)] = histogram
            outcomes[tag] = {LOGGED: histogram.count}
    whole = histograms.get("")
    if whole is None:
        with contextlib.suppress(ValueError):
            whole = functools.reduce(Histogram.merged, histograms.values())
    if whole is not None:
        table["response.all"] = whole
    return table, outcomes
