"""`replay compare`: is the new build slower? A verdict, and files that CI systems show."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import UsageError, damage_named
from replay.files import append as append_to
from replay.files import write_whole

if TYPE_CHECKING:
    from replay.comparison.decision import Options
    from replay.comparison.verdict import Comparison

_FILE = click.Path(path_type=Path, dir_okay=False)
STDOUT = Path("-")
KERNELS = ("ledger.hdr", "ledger.hdr_decode", "statistics.rank", "statistics.student", "statistics.unequal")


_OPTIONS = (
    click.option("--tolerance", default="10%", metavar="PCT", show_default=True, help="A slowdown that does not matter."),
    click.option("--error-tolerance", default="0.1%", metavar="PCT", show_default=True,
                 help="More errors that do not matter, in points."),
    click.option("-m", "--metric", multiple=True, metavar="NAME",
                 help="p50, p99.9, service.p99, errors [default: p50, p99, errors]."),
    click.option("--route", multiple=True, metavar="ROUTE", help="Compare this route too, in place of the biggest ones."),
    click.option("--routes", type=click.IntRange(0, 200), default=5, show_default=True,
                 help="How many of the biggest routes."),
    click.option("--fail-on", type=click.Choice(["regression", "inconclusive"]), default="regression", show_default=True,
                 help="inconclusive: exit 3 where nothing can be concluded."),
    click.option("--json", type=_FILE, metavar="FILE", help="Write the figures for scripts; - is stdout."),
    click.option("--markdown", type=_FILE, metavar="FILE", help="Append a summary; - is stdout."),
    click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML, a case for each metric; - is stdout."),
    click.option("--html", type=_FILE, metavar="FILE", help="Write a page with figures, for a browser."),
    click.option("--annotations", is_flag=True, help="Print ::error and ::notice lines for GitHub [in Actions: on]."),
    click.option("--plain", is_flag=True, help="No colours."),
)  # fmt: skip


def comparison_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options of whatever ends with a comparison."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command(name="compare", short_help="Is the new build slower? A verdict on runs of two builds.")
@click.argument("base", metavar="[base=]PATH[,PATH...]")
@click.argument("new", metavar="[new=]PATH[,PATH...]")
@click.option("--unit", default="", metavar="ns|us|ms|s", help="Of a log's values, where it does not say.")
@click.option(
    "--design",
    type=click.Choice(["auto", "labels", "blocks", "pairs", "sessions"]),
    default="auto",
    show_default=True,
    help="What is compared: all runs, runs within blocks or pairs, or sessions as wholes (nights; each PATH is one)."
    " auto finds ABBA blocks and sessions by the start times.",
)
@click.option(
    "--sequential",
    is_flag=True,
    help="Judge runs of one build that were all made before those of the other, drift or not.",
)
@comparison_options
def command(base: str, new: str, **given: Any) -> None:
    """Compare runs of two builds, each a run folder, a folder of runs, anyone's .hlog, or several of them.

    Exit codes: 0 no regression, or inconclusive; 99 a regression; 3 inconclusive with --fail-on inconclusive;
    4 a run was invalid; 2 wrong usage or input.
    """
    from replay.comparison.verdict import compare
    from replay.report.console import Console

    from .progress import warm_kernels

    files, options = output_files(given), options_of(given)
    warm_kernels(Console(stderr=True, highlight=False), KERNELS)
    with damage_named(f"one of the runs in {base} and {new}"):
        found = compare(base, new, options)
        write_outputs(found, files, annotations=given["annotations"], plain=given["plain"])
    raise SystemExit(int(found.exit_code))


def output_files(given: dict[str, Any]) -> dict[str, Path | None]:
    """Where which output goes. UsageError where two of them go to stdout."""
    files = {name: given[name] for name in ("json", "markdown", "junit", "html")}
    if sum(path == STDOUT for path in files.values()) > 1:
        raise UsageError("only one of --json, --markdown, --junit can go to stdout")
    if files["html"] == STDOUT:
        raise UsageError("--html: a page cannot go to stdout", hint="give a file")
    return files


def options_of(given: dict[str, Any]) -> Options:
    """The options of a command line. UsageError where one is no percentage or metric."""
    from replay.comparison.decision import Options
    from replay.comparison.metrics import DEFAULT, parse_metric

    for name in given["metric"]:
        parse_metric(name)
    return Options(
        tolerance=_percent("--tolerance", given["tolerance"]),
        error_tolerance=_percent("--error-tolerance", given["error_tolerance"]),
        metrics=given["metric"] or DEFAULT,
        routes=given["route"] or given["routes"],
        design=given.get("design", "auto"),
        unit=given.get("unit", ""),
        fail_on=given["fail_on"],
        sequential=given.get("sequential", False),
    )


def _percent(flag: str, text: str) -> float:
    """A percentage, with or without its sign, as a ratio. UsageError where it is none, or not above 0."""
    try:
        value = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 < value <= 100:
        raise UsageError(f"{flag}: {text!r} is no percentage above 0", hint=f"write {flag} 10%")
    return value


def write_outputs(
    found: Comparison, files: dict[str, Path | None], *, annotations: bool, plain: bool
) -> None:
    """The report on stdout (unless a file goes there), annotations, files. OutputError where one cannot be written."""
    from replay.comparison import outputs
    from replay.comparison.document import to_json

    if files["html"] is not None:
        from replay.report.comparison_page import write_comparison_page

        write_comparison_page(found, files["html"])
    made = {"json": to_json, "markdown": lambda c: outputs.markdown(c).encode(), "junit": outputs.junit}
    wanted = [(path, name) for name in made if (path := files[name]) is not None]
    piped = STDOUT in files.values()
    for path, name in sorted(wanted, key=lambda one: one[0] == STDOUT):
        _write(path, made[name](found), append=name == "markdown")
    if not piped:
        _print(found, plain)
    if annotations or os.environ.get("GITHUB_ACTIONS") == "true":
        print(
            "\n".join(outputs.github_annotations(found)), file=sys.stderr if piped else sys.stdout, flush=True
        )


def _print(found: Comparison, plain: bool) -> None:
    from replay.report.comparison import print_comparison

    from .run import report_console_for

    print_comparison(found, report_console_for(plain, quiet=False))


def _write(path: Path, data: bytes, *, append: bool) -> None:
    """All of it, or an OutputError; what stood there is replaced only by a whole file."""
    if path == STDOUT:
        click.echo(data, nl=False)
        return
    write = append_to if append else write_whole
    write(path, data)
