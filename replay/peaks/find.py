"""Runs a search for the peak, from its bounds to its result and files, for `replay peak` and the library."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from replay import units
from replay.errors import OutputError, RefusedError, UsageError, reason_of
from replay.files import write_whole
from replay.ledger.statuses import ACCEPT
from replay.settings.scenario import Scenario
from replay.shown import json_shown
from replay.trace import Trace

from .actions import action_holds
from .climb import Climb, climb
from .first_change import first_changes
from .recovery import Recovery
from .search import Search, Trial
from .trial import Bench

Number = TypeVar("Number", int, float)

VOTES = (1, 3, 5)
"""The possible numbers of trials that decide a load."""


def find_peak(search: Search, bench: Bench, say: Callable[[Trial], None] = lambda _: None) -> Climb:
    """Climb, hold and descend.

    Raise RefusedError if most responses are worse than recorded even at the lowest load.
    """
    window = bench.stretch or bench.prepare()
    found = climb(search, bench, say)
    last = found.trials[-1]
    if last.status_failure and last.stage == "up" and last.load == search.lowest:
        # The target's refusal is reported even if the generator had problems, too.
        raise RefusedError(
            f"{last.status_failure} at the lowest load already, {search.lowest:g} times the recording",
            hint=f"check the target, its data and credentials, or accept it: {ACCEPT}",
        )
    found.window = window
    found.actions = action_holds(found.trials, bench.goals, bench.load_words)
    found.first_changes = first_changes(found.trials, found.above, bench.run_of)
    return found


def find_in_folder(
    trace: Trace,
    scenario: Scenario,
    folder: Path,
    bounds: tuple[float | str, float | str, float | str, int],
    lengths: tuple[float | str, float | str],
) -> Climb:
    """Search for the peak on behalf of a program, and write the runs and peak.json into a new folder.

    `bounds` are lowest, highest, width and votes; `lengths` are those of trial and hold. Raise UsageError if an
    argument is invalid, OutputError if the folder cannot be created, and the errors of `find_peak`.
    """
    lowest, highest, width, votes = bounds
    if votes not in VOTES:
        raise UsageError(f"votes: {votes!r} is not an allowed number of trials", hint="give 1, 3 or 5")
    trial_ns, hold_ns = (
        read_length(text, name) for text, name in zip(lengths, ("trial", "hold"), strict=True)
    )
    with (
        made(folder, hint="give another out"),
        tempfile.TemporaryDirectory(prefix=".work-", dir=folder) as area,
    ):
        bench = Bench(trace, scenario, folder, Path(area), trial_ns=trial_ns, hold_ns=hold_ns)
        search = Search(
            bench.goals,
            read(units.parse_factor, lowest, "lowest"),
            read(units.parse_factor, highest, "highest"),
            read(units.parse_share, width, "width"),
            votes,
            each=bench.each,
        )
        found = find_peak(search, bench)
        lines, rejected = trace.manifest.unread()
        save(folder, found, {"lines": lines, "rejected": rejected})
    return found


def read(parse: Callable[[Any], Number], given: object, name: str) -> Number:
    """Parse a value. Raise UsageError, with the name of the flag or parameter, if it is invalid."""
    try:
        return parse(given)
    except UsageError as error:
        raise UsageError(f"{name}: {error}", hint=error.hint) from None


def read_length(given: object, name: str) -> int:
    """Return the length of a trial or hold in ns. Raise UsageError if it is invalid or shorter than 0.1 s."""
    value_ns = read(units.parse_duration_ns, given, name)
    if value_ns < units.SECOND_NS // 10:
        raise UsageError(f"{name}: {given!r} is shorter than 0.1 s", hint="give 15s, for example")
    return value_ns


def save(folder: Path, what: Climb | Recovery, recording: dict[str, Any]) -> bytes:
    """Write peak.json beside the runs, and return its bytes.

    `recording` says how much of the recording could not be read. Infinite values are written as null.
    """

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and math.isinf(value) else value

    data = {key: finite(value) for key, value in asdict(what).items()} | {"recording": recording}
    document = json_shown(msgspec.json.format(msgspec.json.encode(data), indent=2)) + b"\n"
    write_whole(folder / "peak.json", document)
    return document


@contextlib.contextmanager
def made(folder: Path, hint: str = "give another -o") -> Iterator[None]:
    """Create the folder, and remove it at the end if it is empty. Raise OutputError if it cannot be created."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {reason_of(error)}", hint=hint) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
