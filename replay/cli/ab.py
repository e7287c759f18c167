"""`replay ab`: runs two builds in turns on this machine, and gives a verdict."""

from __future__ import annotations

import secrets
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from replay.errors import UsageError

from .compare import (
    KERNELS,
    comparison_options,
    options_of,
    write_outputs,
)
from .flags import given_settings, settings_flags
from .help import GroupedCommand
from .options import out_option
from .outputs import DEFAULT_PAGE, outputs_of
from .places import SESSIONS
from .run import named_after
from .streams import tell

RESTART_NS = 10_000_000_000
"""How long a run with --together lasts, unless the scenario or --duration sets it."""

FAIL_ON = ("regression", "effect", "different", "inconclusive")

SETTINGS = (
    "headers",
    "methods",
    "speed",
    "duration",
    "warm_up",
    "timeout",
    "max_wait",
    "connections",
    "allow",
    "answers.keep",
    "live",
    "live_allow",
    "live_cert",
    "live_key",
    "live_linger",
    "notify",
    "start_at",
    "build",
)
"""The settings that this verb has flags for. All but `build` apply to both builds."""

WORDS = {
    "build": "Label of the new build [default: from CI's environment, or new]; runs of the old one are labelled base.",
    "methods": 'Methods to send; "all" includes those that write [default: the scenario\'s].',
    "warm_up": "Warm-up at the start of each run, not measured [default: the scenario's].",
    "answers.keep": "What to keep of responses; digest: digests and headers; sample: also some bodies; all: also all "
    "bodies [default: the scenario's, otherwise digest].",
    "duration": "End each run after this long [default: the scenario's; with --together 10s].",
}


def _is_recording(text: str) -> bool:
    """Return whether an argument is a scenario, or the folder of a trace."""
    return text.endswith(".toml") or Path(text).is_dir()


@click.command(name="ab", cls=GroupedCommand, short_help="Run two builds in turns and compare them.")
@click.argument("scenario", metavar="SCENARIO.toml|TRACE|LOG")
@click.option(
    "--base", required=True, metavar="CMD|URL", help="Old build: a command with {port} in it, or a URL."
)
@click.option("--new", required=True, metavar="CMD|URL", help="New build, as --base.")
@click.option(
    "--ready",
    default="",
    metavar="URL|PATH",
    help="URL or path that answers with a status below 500 once a build is ready [default: its port accepts connections].",
)
@click.option(
    "--ready-timeout",
    default="60s",
    metavar="TIME",
    show_default=True,
    help="Time limit for a build to be ready.",
)
@click.option("--setup", default="", metavar="CMD", help="Command to run once, before all runs.")
@click.option(
    "--prepare",
    default="",
    metavar="CMD",
    help="Command to run before each run, once the build is ready; {url} is the build's address.",
)
@click.option(
    "--reset",
    default="",
    metavar="CMD",
    help="Command to run before each run, before the build starts, to reset its data.",
)
@click.option(
    "--cleanup",
    default="",
    metavar="CMD",
    help="Command to run once, after all runs, even after a failure.",
)
@click.option("--cool-down", default="1s", metavar="TIME", show_default=True, help="Pause between two runs.")
@click.option(
    "--time-limit",
    default="10m",
    metavar="TIME",
    show_default=True,
    help="Start no block, or with --together no restart, that would end later than this.",
)
@click.option("--seed", "order_seed", type=int, help="Seed for the order of the builds [default: random].")
@click.option(
    "--together",
    is_flag=True,
    help="Send every request to both builds at the same instant, and restart both between runs (experimental).",
)
@click.option(
    "--restarts",
    type=click.IntRange(6, 100),
    metavar="N",
    help="With --together: the most times that both builds are started and measured [default: 6].",
)
@settings_flags(SETTINGS, words=WORDS)
@out_option("Folder for the session [default: ab/NAME-TIME].")
@comparison_options("compare.html in the session's folder", _is_recording, FAIL_ON)
def command(scenario: str, out: Path | None, **given: Any) -> None:
    """Replay a scenario against two builds, in randomised ABBA and BAAB blocks, and compare them.

    Each run starts and stops its build, unless that is a URL. The session may end with a verdict after 3, 4 or 6 blocks
    (alpha 0.01, 0.015, 0.025). With --together it starts both builds up to --restarts times, sends to both for 10 s (-d)
    each time, and compares these runs in pairs.
    Exit codes are those of `replay compare`; 130 interrupted.
    """
    from replay.audience import audience
    from replay.comparison.session import Session
    from replay.comparison.together import TogetherSession
    from replay.engine.together import KERNELS as OF_PAIRS
    from replay.files import write_whole
    from replay.report.console import Console
    from replay.report.outputs.of_comparison import ComparisonResult
    from replay.settings.bare_times import bare_time_notes
    from replay.settings.instant import instant_of, moment_text
    from replay.trace.importing import open_trace

    from .import_ import ProgressBar
    from .places import keeping, remembering, result_folder
    from .progress import KERNELS as OF_A_RUN
    from .progress import warm_kernels
    from .starting import wait_for
    from .streams import shown_of

    outputs = outputs_of(given)
    settings, recording = _scenario(scenario, given)
    base, new = _builds(given)
    settings = _keeping_answers(settings, base, new)
    if given["together"]:
        settings = _for_both(settings, given)
    elif given["restarts"] is not None:
        raise UsageError("--restarts needs --together, which restarts both builds", hint="add --together")
    if "different" in given["fail_on"]:
        _check_answers(settings.answers.keep)
    plan = _plan(given, base, new)
    kind = TogetherSession if given["together"] else Session
    of_pairs = OF_PAIRS if given["together"] else ()
    errors = Console(stderr=True, highlight=False)
    for note in bare_time_notes(settings):
        errors.print(f"note: {note}")
    warm_kernels(errors, (*OF_A_RUN, *_kernels_of(settings, base, new), *of_pairs, *KERNELS))
    instant_ns = instant_of(settings)
    with (
        result_folder(out, SESSIONS, scenario) as folder, keeping(folder), remembering(folder),
        audience(settings, partial(tell, err=True)) as watching,
    ):  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="replay-ab-") as area:
            with ProgressBar(errors) as progress:
                trace = open_trace([recording], Path(area) / "imported.trace", progress=progress)
            report = partial(tell, err=True)
            if instant_ns is not None:
                watching.waiting(f"The first run begins at {moment_text(instant_ns)}.")
                wait_for(instant_ns, report, plain=given["plain"], lead_ns=0, what="the first run begins")
            found = kind(replace(plan, out=folder), trace, settings, report, watching.sinks).run()
        write_whole(folder / "compare.json", _json(found))
        page = folder / "compare.html"
        ComparisonResult(found).page(page)
        with shown_of(folder):
            write_outputs(
                found, replace(outputs, html=_unless_made(outputs.html)), page, plain=given["plain"]
            )
            tell(f"the page of this comparison: {page}", err=outputs.takes_stdout)
        raise SystemExit(int(found.exit_code))


def _check_answers(keep: str | None) -> None:
    """Raise UsageError if no responses are kept. After `_keeping_answers`, None means a Kafka target."""
    if keep is None:
        why, hint = "a Kafka target sends no responses to compare", "leave out different"
        raise UsageError(f"--fail-on different: {why}", hint=hint)
    if keep == "none":
        raise UsageError("--fail-on different: no responses are kept", hint="give --keep-answers all")


def _plan(given: dict[str, Any], base: Any, new: Any) -> Any:
    """Return the options of the session, with a placeholder for its folder, which is chosen later.

    UsageError if one is invalid.
    """
    from replay.comparison.design import RESTARTS_MIN
    from replay.comparison.session import Plan
    from replay.units import parse_duration_ns

    def seconds(flag: str) -> float:
        return parse_duration_ns(given[flag]) / 1e9

    seed = given["order_seed"]
    return Plan(
        base=base, new=new, out=SESSIONS, ready=given["ready"], ready_s=seconds("ready_timeout"),
        setup=given["setup"], prepare=given["prepare"], reset=given["reset"], cleanup=given["cleanup"],
        cool_down_s=seconds("cool_down"),
        time_limit_s=seconds("time_limit"), seed=secrets.randbits(32) if seed is None else seed,
        options=options_of(given), restarts=given["restarts"] or RESTARTS_MIN,
    )  # fmt: skip


def _unless_made(html: str | None) -> str | None:
    """Return the place for a further copy of the page; None if none is needed.

    The session always writes its own page, at the default place.
    """
    return None if html == DEFAULT_PAGE else html


def _kernels_of(scenario: Any, *builds: Any) -> tuple[str, ...]:
    """Return the kernel modules that runs against these builds need.

    UsageError if one of the builds is not a valid target.
    """
    from msgspec.structs import replace

    from replay.comparison.session import url_of_builds
    from replay.engine.prepare import kernels_of

    urls = [build.what if build.is_url else url_of_builds(scenario) for build in builds]
    return tuple(name for url in urls for name in kernels_of(replace(scenario, target=url)))


def _keeping_answers(scenario: Any, *builds: Any) -> Any:
    """Return the scenario with `answers.keep = "digest"`, unless it sets `answers.keep` or a build is a Kafka target.

    Kafka sends no responses that could be kept.
    """
    from msgspec.structs import replace

    from replay.comparison.session import url_of_builds
    from replay.settings.target import scheme_of

    urls = [build.what if build.is_url else url_of_builds(scenario) for build in builds]
    if scenario.answers.keep is not None or any(scheme_of(url) == "kafka" for url in urls):
        return scenario
    return replace(scenario, answers=replace(scenario.answers, keep="digest"))


def _for_both(scenario: Any, given: dict[str, Any]) -> Any:
    """Return the scenario for runs that send to both builds at once. Without a duration, it gets RESTART_NS.

    UsageError if the scenario writes and --methods is not given, because one database could receive each write
    twice.
    """
    from msgspec.structs import replace

    from replay.settings.kinds.quantities import Duration
    from replay.trace.inspection import SAFE_METHODS
    from replay.units import format_duration

    writing = [method for method in scenario.methods if method not in {*SAFE_METHODS, "OPTIONS"}]
    if writing and "methods" not in given_settings(given)[0]:
        raise UsageError(
            f"--together sends every request to both builds, and the scenario's methods are {', '.join(scenario.methods)}:"
            " if both builds share a database, each write would be made twice",
            hint="give --methods GET,HEAD, or --methods including those that write if each build has a database of its own",
        )
    if scenario.duration_ns is not None:
        return scenario
    tell(f"each run ends after {format_duration(RESTART_NS)} (--duration changes that)", err=True)
    return replace(scenario, duration_ns=Duration(RESTART_NS))


def _json(found: Any) -> bytes:
    from replay.comparison.document import to_json

    return to_json(found)


def _builds(given: dict[str, Any]) -> tuple[Any, Any]:
    from replay.comparison.builds import Build

    return Build("base", given["base"]), Build("new", given["new"])


def _scenario(name: str, given: dict[str, Any]) -> tuple[Any, str]:
    """Return the scenario with flags applied, and the recording to replay. UsageError if a file sets no trace."""
    from replay.protocols.scenario import load_scenario

    path = Path(name) if name.endswith(".toml") else None
    scenario = named_after(load_scenario(path, *given_settings(given)), path)
    if path is not None and not scenario.trace:
        raise UsageError(
            f"{name} does not name a trace",
            hint='add trace = "FILE" to it, or give the trace instead of the scenario',
        )
    return scenario, name if path is None else str(path.parent / scenario.trace)
