"""`replay peak`: the highest scale of a trace that a target survives, and whether it comes back from a surge."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from replay import units
from replay.engine.prepare import kernels_of, parse_targets
from replay.errors import Exit, OutputError, RefusedError, UsageError, reason_of
from replay.files import write_whole
from replay.ledger.statuses import ACCEPT
from replay.peaks.climb import Climb, climb
from replay.peaks.recovery import Recovery
from replay.peaks.search import Search
from replay.peaks.trial import Bench
from replay.report.console import Console
from replay.report.outputs.of_peak import PeakResult, climb_cases, surge_cases
from replay.report.peak import (
    climb_facts,
    print_climb,
    print_surge,
    rate_at,
    recording_facts,
    surge_facts,
    trial_line,
)
from replay.report.peak_page import write_peak_page, write_surge_page
from replay.results.run import load_run
from replay.settings.scenario import Scenario
from replay.shown import json_shown
from replay.trace.importing import open_trace

from .flags import flags_of_all, settings_flags
from .help import GroupedCommand
from .import_ import ProgressBar
from .options import out_option
from .outputs import Outputs, output_options, outputs_of
from .places import keeping, result_folder
from .progress import KERNELS, warm_kernels
from .run import (
    RUNS,
    read_scenario,
    report_console_for,
    work_area,
)
from .streams import shown_of

Number = TypeVar("Number", int, float)

ENDINGS = {
    "FOUND": "The highest load that meets every objective: {peak} times the recording, {rate}.",
    "NO_LIMIT": "Every objective is met up to --highest: {peak} times the recording, {rate}.",
    "GENERATOR_LIMITED": "The generator was at its limit; the target met every objective up to {peak} times the"
    " recording.",
    "DID_NOT_RECOVER": "The target did not come back from {above} times the recording; it met every objective up to"
    " {peak} times before.",
    "FAILS_AT_LOWEST": "The target misses {missed} at the lowest load already, {lowest} times the recording, {rate}: lower"
    " --lowest, or give objectives that it can meet (--slo).",
    "OUT_OF_TRIALS": "The answers contradict each other: no peak was found.",
}
_NO_ANSWERS = {"UNKNOWN": Exit.INVALID, "UNSTEADY": Exit.INCONCLUSIVE}
_EXITS = {"FOUND": Exit.PASSED, "NO_LIMIT": Exit.PASSED, "GENERATOR_LIMITED": Exit.INVALID}


def _sentence(found: Climb) -> str:
    last = found.trials[-1]
    load = last.load if found.verdict == "FAILS_AT_LOWEST" else found.peak
    return ENDINGS[found.verdict].format(
        peak=f"{found.peak:.3g}",
        above=f"{found.above:.3g}",
        rate=rate_at(found, load),
        lowest=f"{last.load:.3g}",
        missed=", ".join(goal for goal, passed in last.passed.items() if not passed),
    )


def _save(folder: Path, what: Climb | Recovery, recording: dict[str, Any]) -> bytes:
    """Write peak.json beside the runs; returns it."""

    def finite(value: Any) -> Any:
        return None if isinstance(value, float) and math.isinf(value) else value

    data = {key: finite(value) for key, value in asdict(what).items()} | {"recording": recording}
    document = json_shown(msgspec.json.format(msgspec.json.encode(data), indent=2)) + b"\n"
    write_whole(folder / "peak.json", document)
    return document


def _read(parse: Callable[[str], Number], text: str, flag: str) -> Number:
    """What a flag says. UsageError names the flag."""
    try:
        return parse(text)
    except UsageError as error:
        raise UsageError(f"{flag}: {error}", hint=error.hint) from None


def _duration(text: str, flag: str) -> int:
    value_ns = _read(units.parse_duration_ns, text, flag)
    if value_ns < units.SECOND_NS // 10:
        raise UsageError(f"{flag}: {text!r} is too short for a trial", hint="give 15s")
    return value_ns


def _climb(bench: Bench, console: Console, lowest: str, highest: str, width: str, votes: int) -> Climb:
    search = Search(
        bench.goals,
        _read(units.parse_factor, lowest, "--lowest"),
        _read(units.parse_factor, highest, "--highest"),
        _read(units.parse_share, width, "--width"),
        votes,
        each=bench.each,
    )
    window = bench.prepare()
    console.print(window.words, style="dim")
    found = climb(search, bench, lambda trial: console.print(trial_line(trial), style="dim"))
    last = found.trials[-1]
    if last.status_failure and last.stage == "up" and last.load == search.lowest:
        # Whatever the generator did meanwhile: a refusal is a refusal.
        raise RefusedError(
            f"{last.status_failure} at the lowest load already, {search.lowest:g} times the recording",
            hint=f"check the target, its data and credentials, or accept it: {ACCEPT}",
        )
    found.window = window
    return found


_SET_BY_PEAK = (
    "scale",
    "grow",
    "sample",
    "sample_by",
    "peak",
    "rate",
    "speed",
    "compress_to",
    "duration",
    "warm_up",
    "x_replay",
)
SETTINGS = tuple(key for key in flags_of_all() if key not in _SET_BY_PEAK)
"""The settings that flags may change; the others are what a search for the peak varies."""

WORDS = {
    "slo": "Objectives with units: 'p99<250ms' [default: errors<0.1% and errors<1%].",
    "window.from": "Where trials and hold are taken from [default: the busiest part].",
    "window.until": "Moment before which trials and hold end; +10m counts from the first moment.",
}


@click.command(
    name="peak",
    cls=GroupedCommand,
    short_help="Find the highest load that a target sustains, and whether it recovers.",
)
@click.argument("paths", nargs=-1, metavar="SCENARIO.toml|TRACE")
@settings_flags(SETTINGS, words=WORDS)
@out_option("Folder for the runs [default: runs/NAME-TIME].")
@click.option("--lowest", default="0.25", metavar="K", show_default=True, help="First scale to try.")
@click.option("--highest", default="64", metavar="K", show_default=True, help="Last scale to try.")
@click.option("--width", default="2%", metavar="SHARE", show_default=True, help="Precision of the answer.")
@click.option("--trial", default="15s", metavar="TIME", show_default=True, help="Length of a trial.")
@click.option("--hold", default="60s", metavar="TIME", show_default=True, help="How long the peak is held.")
@click.option(
    "--votes",
    type=click.Choice(["1", "3", "5"]),
    default="3",
    show_default=True,
    help="Trials for each load.",
)
@click.option(
    "--surge",
    metavar="K",
    help="Instead: baseline, K times the baseline, baseline again: does the target recover?",
)
@click.option("--trigger", default="20s", metavar="TIME", show_default=True, help="Length of --surge.")
@output_options("peak.html in the folder of the runs")
@click.option("--plain", is_flag=True, help="No colours.")
def command(
    paths: tuple[str, ...], out: Path | None, lowest: str, highest: str, width: str, trial: str, hold: str,
    votes: str, surge: str | None, trigger: str, plain: bool, **given: Any,
) -> None:  # fmt: skip
    """Find the highest scale of a trace that meets the objectives; hold it; come down again.

    Trials run the busiest --trial of the recording, the hold the busiest --hold around it at the same mean rate. --from
    begins that window elsewhere; --from with --until names the part of the recording to look for it in.

    Exit codes: 0 found, 1 a trial could not be made after others were, 3 none (or none that could be held), 4 the generator
    was the limit, 99 did not recover, or most responses have a worse status than recorded at the lowest load already.
    """
    outputs = outputs_of(given)
    scenario, recordings = read_scenario(paths, given)
    parse_targets(scenario)
    lengths_ns = _duration(trial, "--trial"), _duration(hold, "--hold"), _duration(trigger, "--trigger")
    console = report_console_for(plain, False, stderr=outputs.takes_stdout)
    errors = Console(stderr=True, highlight=False)
    warm_kernels(errors, [*KERNELS, *kernels_of(scenario), "workload.scale"])
    with (
        result_folder(out, RUNS, recordings[0]) as folder, _made(folder), work_area(folder) as area, keeping(folder)
    ):  # fmt: skip
        raise SystemExit(_measured(scenario, recordings, folder, area, lengths_ns, console, errors, surge,
                                   (lowest, highest, width, int(votes)), outputs))  # fmt: skip


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make the folder; it goes where nothing came into it."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {reason_of(error)}", hint="give another -o") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _measured(
    scenario: Scenario, recordings: list[str], folder: Path, area: Path, lengths_ns: tuple[int, int, int], console: Console,
    errors: Console, surge: str | None, bounds: tuple[str, str, str, int], outputs: Outputs,
) -> int:  # fmt: skip
    """Do it, print it, save it; the exit code."""
    with ProgressBar(errors) as progress:
        trace = open_trace(recordings, area / "imported.trace", progress=progress)
    bench = Bench(trace, scenario, folder, area, trial_ns=lengths_ns[0], hold_ns=lengths_ns[1])
    before = recording_facts(trace.manifest, scenario)
    lines, rejected = trace.manifest.unread()
    recording = {"lines": lines, "rejected": rejected}
    if surge is not None:
        times = _read(units.parse_factor, surge, "--surge")
        return _surged(bench, folder, console, times, lengths_ns[2], before, recording, outputs)
    trial, hold = (units.format_duration(length_ns) for length_ns in lengths_ns[:2])
    before.append(("trials", f"{trial} each; the peak is held for {hold}"))
    found = _climb(bench, errors, *bounds)
    document, sentence, code = _save(folder, found, recording), _sentence(found), _climb_code(found)

    def page(path: Path) -> None:
        write_peak_page(found, sentence, path, before)

    page(folder / "peak.html")
    with shown_of(folder):
        print_climb(found, sentence, before, folder, console)
        cases = climb_cases(found, sentence, failed=code != Exit.PASSED)
        time_s = sum(trial.length_s for trial in found.trials)
        facts_shown = [*before, *climb_facts(found)]
        result = PeakResult(
            folder.name, found.verdict, sentence, cases, time_s, facts_shown, document, page, found.trials
        )
        outputs.write(result, folder / "peak.html")
    return code


def _climb_code(found: Climb) -> int:
    if found.recovery == "DID_NOT_RECOVER":
        return Exit.FAILED
    if found.held is False and found.held_load is None:
        return Exit.INCONCLUSIVE
    return _EXITS.get(found.verdict, Exit.INCONCLUSIVE)


def _surged(
    bench: Bench, folder: Path, console: Console, times: float, trigger_ns: int, before: list[tuple[str, str]],
    recording: dict[str, Any], outputs: Outputs,
) -> int:  # fmt: skip
    """A surge, printed and saved; the exit code."""
    recovery = bench.surge(times, trigger_ns)
    document = _save(folder, recovery, recording)
    surge = load_run(folder / "surge")

    def page(path: Path) -> None:
        write_surge_page(recovery, surge, times, trigger_ns, path, before)

    page(folder / "peak.html")
    found = [*before, *surge_facts(recovery, times, trigger_ns)]
    with shown_of(folder):
        print_surge(recovery, times, trigger_ns, before, folder, console)
        sentence = f"a surge of {times:g} times: {recovery.verdict}"
        cases = surge_cases(recovery, sentence)
        length_s = surge.document.duration_s
        result = PeakResult(folder.name, recovery.verdict, sentence, cases, length_s, found, document, page)
        outputs.write(result, folder / "peak.html")
    if recovery.verdict in _NO_ANSWERS:
        return _NO_ANSWERS[recovery.verdict]
    return Exit.FAILED if recovery.verdict == "DID_NOT_RECOVER" else Exit.PASSED
