"""Runs `replay peak`, prints its result, and saves it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from replay import units
from replay.audience import audience
from replay.engine.prepare import kernels_of, parse_targets
from replay.engine.sinks import Sink
from replay.errors import (
    Exit,
)
from replay.peaks.climb import Climb
from replay.peaks.find import find_peak, made, read, read_length, save
from replay.peaks.search import Search
from replay.peaks.trial import Bench, RunTrial, run_here
from replay.report.console import Console
from replay.report.outputs.of_peak import PeakResult, climb_cases, surge_cases
from replay.report.peak import (
    climb_facts,
    print_climb,
    print_surge,
    rate_at,
    recording_facts,
    surge_facts,
)
from replay.report.peak_page import write_peak_page, write_surge_page
from replay.report.peak_trials import trial_line
from replay.report.watched import facts_of_watched
from replay.results.run import load_run
from replay.settings.instant import instant_of, moment_text
from replay.settings.scenario import Scenario
from replay.trace.importing import open_trace

from .cluster_options import check_unused
from .import_ import ProgressBar
from .outputs import Outputs, outputs_of
from .places import RUNS, keeping, remembering, result_folder
from .progress import KERNELS, warm_kernels
from .run import (
    print_to_stderr,
    read_scenario,
    report_console_for,
    work_area,
)
from .starting import wait_for
from .streams import shown_of

ENDINGS = {
    "FOUND": "The highest load that meets every objective: {peak} times the recording, {rate}.",
    "NO_LIMIT": "Every objective is met up to --highest: {peak} times the recording, {rate}.",
    "GENERATOR_LIMITED": "The generator was at its limit; the target met every objective up to {peak} times the"
    " recording.",
    "DID_NOT_RECOVER": "The target did not recover from {above} times the recording; before that, it met every objective"
    " up to {peak} times the recording.",
    "FAILS_AT_LOWEST": "The target misses {missed} even at the lowest load, {lowest} times the recording, {rate}: lower"
    " --lowest, or give objectives that it can meet (--slo).",
    "OUT_OF_TRIALS": "The trials contradict each other: no peak was found.",
}
_ENDINGS_WITHOUT_PEAK = {
    "GENERATOR_LIMITED": "The generator was at its limit already at {lowest} times the recording, so nothing is known about"
    " the target.",
    "DID_NOT_RECOVER": "The target did not recover from {above} times the recording; no load met every objective.",
}
"""The endings that differ if no load met every objective."""

_NO_ANSWERS = {"UNKNOWN": Exit.INVALID, "UNSTEADY": Exit.INCONCLUSIVE}
_EXITS = {"FOUND": Exit.PASSED, "NO_LIMIT": Exit.PASSED, "GENERATOR_LIMITED": Exit.INVALID}


def _sentence(found: Climb) -> str:
    last = found.trials[-1]
    load = last.load if found.verdict == "FAILS_AT_LOWEST" else found.peak
    endings = ENDINGS if found.peak else ENDINGS | _ENDINGS_WITHOUT_PEAK
    return endings[found.verdict].format(
        peak=f"{found.peak:.3g}",
        above=f"{found.above:.3g}",
        rate=rate_at(found, load),
        lowest=f"{last.load:.3g}",
        missed=", ".join(goal for goal, passed in last.passed.items() if not passed),
    )


def _climb(bench: Bench, console: Console, lowest: str, highest: str, width: str, votes: int) -> Climb:
    search = Search(
        bench.goals,
        read(units.parse_factor, lowest, "--lowest"),
        read(units.parse_factor, highest, "--highest"),
        read(units.parse_share, width, "--width"),
        votes,
        each=bench.each,
    )
    console.print(bench.prepare().words, style="dim")
    return find_peak(search, bench, lambda trial: console.print(trial_line(trial), style="dim"))


def find(
    paths: tuple[str, ...], out: Path | None, bounds: tuple[str, str, str, int], lengths: tuple[str, str, str],
    surge: str | None, plain: bool, given: dict[str, Any],
) -> int:  # fmt: skip
    """Run `replay peak` and return the exit code.

    `bounds` are --lowest, --highest, --width and --votes; `lengths` are --trial, --hold and --trigger.
    """
    outputs = outputs_of(given)
    scenario, recordings = read_scenario(paths, given)
    parse_targets(scenario)
    if given["cluster"] is None:
        check_unused(given)
    flags = ("--trial", "--hold", "--trigger")
    trial_ns, hold_ns, trigger_ns = (
        read_length(text, flag) for text, flag in zip(lengths, flags, strict=True)
    )
    console = report_console_for(plain, False, stderr=outputs.takes_stdout)
    errors = Console(stderr=True, highlight=False)
    instant_ns = instant_of(scenario)
    with (
        result_folder(out, RUNS, recordings[0]) as folder, made(folder), work_area(folder) as area, keeping(folder),
        remembering(folder), audience(scenario, print_to_stderr) as watching,
    ):  # fmt: skip
        warm_kernels(errors, [*KERNELS, *kernels_of(scenario), "workload.scale"])

        def begin() -> None:
            if instant_ns is not None:
                watching.waiting(f"The test begins at {moment_text(instant_ns)}.")
                wait_for(instant_ns, print_to_stderr, plain=plain, lead_ns=0, what="the test begins")

        run = _trials(given, scenario, recordings[0], watching.sinks)
        return _measured(
            begin,
            run,
            scenario,
            recordings,
            folder,
            area,
            (trial_ns, hold_ns, trigger_ns),
            console,
            errors,
            surge,
            bounds,
            outputs,
        )


def _trials(given: dict[str, Any], scenario: Scenario, name: str, sinks: Sequence[Sink]) -> RunTrial:
    """Return the function that runs a trial: in this process, or over the agents on many machines."""
    if given["cluster"] is None:
        return partial(run_here, sinks)
    from .cluster_run import trials_over_cluster

    return trials_over_cluster(given, scenario, name, sinks)


def _measured(
    begin: Callable[[], None], run: RunTrial, scenario: Scenario, recordings: list[str], folder: Path, area: Path,
    lengths_ns: tuple[int, int, int], console: Console, errors: Console, surge: str | None,
    bounds: tuple[str, str, str, int], outputs: Outputs,
) -> int:  # fmt: skip
    """Search for the peak or make the surge, print and save the result, and return the exit code."""
    with ProgressBar(errors) as progress:
        trace = open_trace(recordings, area / "imported.trace", progress=progress)
    begin()
    bench = Bench(trace, scenario, folder, area, trial_ns=lengths_ns[0], hold_ns=lengths_ns[1], run=run)
    before = recording_facts(trace.manifest, scenario)
    lines, rejected = trace.manifest.unread()
    recording = {"lines": lines, "rejected": rejected}
    if surge is not None:
        times = read(units.parse_factor, surge, "--surge")
        return _surged(bench, folder, console, times, lengths_ns[2], before, recording, outputs)
    trial, hold = (units.format_duration(length_ns) for length_ns in lengths_ns[:2])
    before.append(("trials", f"{trial} each; the peak is held for {hold}"))
    found = _climb(bench, errors, *bounds)
    document, sentence, code = save(folder, found, recording), _sentence(found), _climb_code(found)

    def page(path: Path) -> None:
        write_peak_page(found, sentence, path, before, lambda name: load_run(folder / name))

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
    """Make a surge, print and save the result, and return the exit code."""
    recovery = bench.surge(times, trigger_ns)
    document = save(folder, recovery, recording)
    surge = load_run(folder / "surge")

    def page(path: Path) -> None:
        write_surge_page(recovery, surge, times, trigger_ns, path, before)

    page(folder / "peak.html")
    watched = [(fact.label, fact.words) for fact in facts_of_watched(surge.document)]
    found = [*before, *surge_facts(recovery, times, trigger_ns), *watched]
    with shown_of(folder):
        print_surge(recovery, times, trigger_ns, before, watched, folder, console)
        sentence = f"a surge of {times:g} times the baseline: {recovery.verdict}"
        cases = surge_cases(recovery, sentence)
        length_s = surge.document.duration_s
        result = PeakResult(folder.name, recovery.verdict, sentence, cases, length_s, found, document, page)
        outputs.write(result, folder / "peak.html")
    if recovery.verdict in _NO_ANSWERS:
        return _NO_ANSWERS[recovery.verdict]
    return Exit.FAILED if recovery.verdict == "DID_NOT_RECOVER" else Exit.PASSED
