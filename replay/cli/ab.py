"""`replay ab`: two builds in turns on this machine, and a verdict."""

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
    output_files,
    write_outputs,
)
from .streams import tell

SESSIONS = Path("ab")
"""Where sessions go without `-o`."""


@click.command(name="ab", short_help="Run two builds in turns, and say whether the new one is slower.")
@click.argument("scenario", metavar="SCENARIO.toml|TRACE|LOG")
@click.option(
    "--base", required=True, metavar="CMD|URL", help="The old build: a command with {port} in it, or a URL."
)
@click.option("--new", required=True, metavar="CMD|URL", help="The new build.")
@click.option(
    "--ready",
    default="",
    metavar="URL|PATH",
    help="Answers below 500 when a build is ready [default: the port].",
)
@click.option(
    "--ready-timeout", default="60s", metavar="TIME", show_default=True, help="For a build to be ready."
)
@click.option("--setup", default="", metavar="CMD", help="Once, before all.")
@click.option(
    "--prepare",
    default="",
    metavar="CMD",
    help="Before each run, the build being ready; {url} is its address.",
)
@click.option("--cleanup", default="", metavar="CMD", help="Once, after all, whatever happened.")
@click.option(
    "--warm-up",
    metavar="TIME",
    help="First moments of each run that are not measured [default: the scenario's].",
)
@click.option("--cool-down", default="1s", metavar="TIME", show_default=True, help="Between two runs.")
@click.option(
    "--time-limit",
    default="10m",
    metavar="TIME",
    show_default=True,
    help="No block begins that would not end within.",
)
@click.option("--methods", metavar="LIST", help="Methods to send, or all [default: the scenario's].")
@click.option("--speed", metavar="FACTOR", help="As for replay run.")
@click.option("-d", "--duration", metavar="TIME", help="End each run after this long.")
@click.option(
    "--allow",
    multiple=True,
    metavar="HOST",
    help="Allow a target beyond loopback: a name, *.name, address or network.",
)
@click.option("--seed", type=int, help="Of the order of the blocks [default: random].")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="The session's folder [default: ab/NAME-TIME]."
)
@comparison_options
def command(scenario: str, out: Path | None, **given: Any) -> None:
    """Replay a scenario onto two builds, in randomised ABBA and BAAB blocks, and compare them.

    Each run starts its build afresh and ends it. After 3, 4 and 6 blocks the session may end with a verdict (alpha 0.01,
    0.015, 0.025). Exit codes as of `replay compare`; 130 interrupted.
    """
    from replay.comparison.session import Plan, Session
    from replay.files import write_whole
    from replay.report.console import Console
    from replay.settings.bare_times import bare_time_notes
    from replay.trace.importing import open_trace
    from replay.units import parse_duration_ns

    from .import_ import ProgressBar
    from .places import keeping, result_folder
    from .progress import KERNELS as OF_A_RUN
    from .progress import warm_kernels
    from .streams import shown_of

    files = output_files(given)
    knobs, recording = _scenario(scenario, given)
    base, new = _builds(given)

    def seconds(flag: str) -> float:
        return parse_duration_ns(given[flag]) / 1e9

    plan = Plan(
        base=base, new=new, out=SESSIONS, ready=given["ready"], ready_s=seconds("ready_timeout"),
        setup=given["setup"], prepare=given["prepare"], cleanup=given["cleanup"], cool_down_s=seconds("cool_down"),
        time_limit_s=seconds("time_limit"), seed=secrets.randbits(32) if given["seed"] is None else given["seed"],
        options=options_of(given),
    )  # fmt: skip
    errors = Console(stderr=True, highlight=False)
    for note in bare_time_notes(knobs):
        errors.print(f"note: {note}")
    warm_kernels(errors, (*OF_A_RUN, *KERNELS))
    with result_folder(out, SESSIONS, scenario) as folder, keeping(folder):
        with tempfile.TemporaryDirectory(prefix="replay-ab-") as area:
            with ProgressBar(errors) as progress:
                trace = open_trace([recording], Path(area) / "imported.trace", progress=progress)
            report = partial(tell, err=True)
            found = Session(replace(plan, out=folder), trace, knobs, report).run()
        write_whole(folder / "compare.json", _json(found))
        with shown_of(folder):
            write_outputs(found, files, annotations=given["annotations"], plain=given["plain"])
        raise SystemExit(int(found.exit_code))


def _json(found: Any) -> bytes:
    from replay.comparison.document import to_json

    return to_json(found)


def _builds(given: dict[str, Any]) -> tuple[Any, Any]:
    from replay.comparison.builds import Build

    return Build("base", given["base"]), Build("new", given["new"])


def _scenario(name: str, given: dict[str, Any]) -> tuple[Any, str]:
    """The scenario, flags over it, and the recording to replay."""
    from replay.settings.file import load

    path = Path(name) if name.endswith(".toml") else None
    flags = {"warm_up": "--warm-up", "methods": "--methods", "speed": "--speed", "duration": "--duration"}
    knobs: dict[str, Any] = {knob: given[knob] for knob in flags if given[knob] is not None}
    if given["allow"]:
        knobs["allow"], flags["allow"] = list(given["allow"]), "--allow"
    scenario = load(path, knobs, {knob: flags[knob] for knob in knobs})
    if path is not None and not scenario.trace:
        raise UsageError(
            f"{name} names no trace", hint='write trace = "FILE" in it, or give the trace itself'
        )
    return scenario, name if path is None else str(path.parent / scenario.trace)
