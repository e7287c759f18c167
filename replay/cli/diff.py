"""`replay diff`: gives a verdict on whether the responses of two builds are the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import OutputError, UsageError, damage_named

from .options import fail_on_option
from .outputs import Outputs, output_options, outputs_of

if TYPE_CHECKING:
    from replay.differences.findings import Differences
    from replay.differences.judging import Options, RunsOfSide
    from replay.settings.ignore_rules import IgnoreRule

FORM = "base=RUN[,RUN...] new=RUN[,RUN...]"


@click.command(name="diff", short_help="Are the responses the same? A verdict on runs of two builds.")
@click.argument("sides", nargs=-1, metavar="[base=]RUN[,RUN...] [new=]RUN[,RUN...]")
@click.option(
    "--values", is_flag=True, help="With base=recorded: compare values too, not only presence and type."
)
@click.option(
    "--trace",
    "trace_path",
    metavar="TRACE",
    help="With base=recorded: trace of the recording [default: the path that the runs recorded].",
)
@click.option(
    "--ignore",
    "ignore_files",
    multiple=True,
    metavar="FILE.toml",
    help="File of [[ignore]] rules, added to those in the runs' scenarios; repeatable.",
)
@click.option(
    "--accept",
    metavar="FILE",
    help="Write an [[ignore]] rule for each field that differs to a new FILE, for review.",
)
@fail_on_option(
    ("different", "inconclusive"), "different", "inconclusive: exit with 3 if nothing can be concluded."
)
@click.option("--plain", is_flag=True, help="No colours.")
@output_options("diff.html")
def command(sides: tuple[str, ...], **given: Any) -> None:
    """Compare the responses of two builds in runs that kept them (--keep-answers). Each build needs 4 runs or more.

    base=recorded compares one or more runs of one build with the responses in their recording.

    Exit codes: 0 the same, or inconclusive; 99 different; 3 inconclusive with --fail-on inconclusive; 4 a run was
    invalid; 2 wrong usage or input.
    """  # fmt: skip
    from replay.differences.judging import compare_responses

    outputs, options = outputs_of(given), _options(given)
    accept = _new_file(given["accept"])
    if any(side.partition("=")[2] == "recorded" for side in sides):
        found = _against_recording(sides, given, options)
    else:
        if given["values"] or given["trace_path"]:
            raise UsageError(
                "--values and --trace need base=recorded",
                hint="replay diff base=recorded new=RUN",
            )
        base, new = _two_sides(sides)
        with damage_named("one of the runs"):
            found = compare_responses(base, new, options)
    write_differences(found, outputs, plain=given["plain"])
    if accept is not None:
        _accept(found, accept)
    raise SystemExit(int(found.exit_code))


def write_differences(found: Differences, outputs: Outputs, *, plain: bool) -> None:
    """Print the report, and write the outputs.

    The report is not printed if an output goes to stdout.
    """
    from replay.report.differences import print_differences
    from replay.report.outputs.of_differences import DifferencesResult

    from .run import report_console_for

    if not outputs.takes_stdout:
        print_differences(found, report_console_for(plain, quiet=False))
    outputs.write(DifferencesResult(found), Path("diff.html"))


def _options(given: dict[str, Any]) -> Options:
    from replay.differences.judging import Options
    from replay.settings.file import load

    rules: list[IgnoreRule] = []
    for name in given["ignore_files"]:
        found = load(Path(name)).ignore
        if not found:
            raise UsageError(
                f"--ignore: {name} has no [[ignore]] rule", hint="replay diff --accept FILE writes such rules"
            )
        rules += found
    return Options(ignore=tuple(rules), fail_on=given["fail_on"], values=given["values"])


def _two_sides(sides: tuple[str, ...]) -> tuple[RunsOfSide, RunsOfSide]:
    """Load both sides, grouped by the rules of `replay compare`."""
    from replay.comparison.paths import two_sides
    from replay.comparison.responses import runs_of
    from replay.comparison.sides import load_sides, load_without_latencies

    with damage_named(f"one of the runs in {' '.join(sides)}"):
        base, new = load_sides(*two_sides(sides, "diff"), folder=load_without_latencies)
        return runs_of(base), runs_of(new)


def _against_recording(sides: tuple[str, ...], given: dict[str, Any], options: Options) -> Differences:
    """Compare runs with the responses in their recording. UsageError unless the sides are base=recorded and one other."""
    from replay.comparison.responses import runs_of
    from replay.comparison.sides import load_side, load_without_latencies
    from replay.differences.recorded import compare_with_recording

    others = [side for side in sides if side.partition("=")[2] != "recorded"]
    if len(sides) != 2 or len(others) != 1 or "base=recorded" not in sides:
        raise UsageError(
            "a recording can only be compared as base=recorded, with the runs of exactly one other side",
            hint="replay diff base=recorded new=RUN",
        )
    with damage_named(f"one of the runs in {others[0]}"):
        return compare_with_recording(
            runs_of(load_side(others[0], "new", load_without_latencies)), given["trace_path"], options
        )


def _new_file(name: str | None) -> Path | None:
    """Return the path of --accept, or None.

    OutputError if the file exists, because it may be a scenario, or if its folder does not exist.
    """
    if name is None:
        return None
    path = Path(name)
    if path.exists() or path.is_symlink():
        raise OutputError(
            f"--accept: {name} exists already",
            hint="give the name of a new file, so that you can review its rules first",
        )
    if not path.parent.is_dir():
        raise OutputError(f"--accept: there is no folder {path.parent}", hint="make it first")
    return path


def _accept(found: Differences, path: Path) -> None:
    from replay.differences.accepting import rules_text
    from replay.files import write_whole

    from .streams import tell

    write_whole(path, rules_text(found).encode())
    if any(not one.inside for one in found.different):
        tell(f"{path} written: review it before you add it to the scenario", err=True)
    else:
        tell(f"{path} written: it has no rule, because no field was found to differ", err=True)
