"""`replay compare`: gives a verdict on whether the new build is slower, and writes files for CI systems."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import damage_named

from .options import fail_on_option
from .outputs import Outputs, output_options, outputs_of

if TYPE_CHECKING:
    from replay.comparison.decision import Options
    from replay.comparison.verdict import Comparison

KERNELS = ("ledger.hdr", "statistics.rank", "statistics.student", "statistics.unequal")


_OPTIONS = (
    click.option("--tolerance", default="10%", metavar="PCT", show_default=True, help="Largest slowdown to accept."),
    click.option("--error-tolerance", default="0.1%", metavar="PCT", show_default=True,
                 help="Largest increase in errors to accept, in points."),
    click.option("-m", "--metric", multiple=True, metavar="NAME",
                 help="Metric to compare, such as p99.9, service.p99 or errors [default: p50, p99, errors]; repeatable."),
    click.option("--route", multiple=True, metavar="ROUTE", help="Compare this route instead of the "
                                                                 "busiest ones; repeatable."),
    click.option("--routes", type=click.IntRange(0, 200), default=5, show_default=True,
                 help="How many of the busiest routes to compare."),
)  # fmt: skip
_PLAIN = click.option("--plain", is_flag=True, help="No colours.")
FAIL_ON = ("regression", "different", "inconclusive")
_FAIL_ON_WORDS = {
    "effect": "exit with 99 also if the slower build was never restarted (URLs with --together), so that the process may be"
    " the cause and not the build",
    "different": "exit with 99 if responses differ, too",
    "inconclusive": "exit with 3 if nothing can be concluded",
}


def comparison_options(
    page: str, is_argument: Callable[[str], bool], fail_on: tuple[str, ...] = FAIL_ON
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the options of verbs that end with a comparison.

    `page` and `is_argument` are those of `output_options`; `fail_on` are the values of `--fail-on`.
    """
    text = "; ".join(f"{word}: {_FAIL_ON_WORDS[word]}" for word in fail_on if word in _FAIL_ON_WORDS)
    guard = fail_on_option(fail_on, "regression", f"{text}.")

    def added(function: Callable[..., None]) -> Callable[..., None]:
        for option in (_PLAIN, guard, *reversed(_OPTIONS), output_options(page, is_argument)):
            function = option(function)
        return function

    return added


def _is_runs(text: str) -> bool:
    """Return whether an argument can be a side of a comparison, and not the FILE of an output."""
    return "=" in text or "," in text or text.endswith(".hlog") or Path(text).is_dir()


@click.command(name="compare", short_help="Is the new build slower? A verdict on runs of two builds.")
@click.argument("sides", nargs=-1, metavar="[base=]PATH[,PATH...] [new=]PATH[,PATH...]")
@click.option(
    "--unit", default="", metavar="ns|us|ms|s", help="Unit of the values in a .hlog that does not state one."
)
@click.option(
    "--design",
    type=click.Choice(["auto", "labels", "blocks", "pairs", "together", "sessions"]),
    default="auto",
    show_default=True,
    help="What is compared: all runs, runs within blocks or pairs, pairs that ran at the same instants (together), or"
    " whole sessions (such as nights; each PATH is one). auto recognizes ABBA blocks, pairs and sessions by start times.",
)
@click.option(
    "--sequential",
    is_flag=True,
    help="Give a verdict even if all runs of one build were made before those of the other, so that drift "
    "can look like a difference.",
)
@comparison_options("compare.html", _is_runs)
def command(sides: tuple[str, ...], **given: Any) -> None:
    """Compare runs of two builds, each a run folder, a folder of runs, a .hlog of any program, or several of these.

    More than two paths (base/* new/*) are grouped by folder; there must be exactly two folders.

    If all runs kept responses (--keep-answers), the responses are compared too, as by `replay diff`.

    Exit codes: 0 no regression, or inconclusive; 99 a regression, or responses that differ with --fail-on different; 3
    inconclusive with --fail-on inconclusive; 4 a run was invalid; 2 wrong usage or input.
    """
    from replay.comparison.paths import two_sides
    from replay.comparison.verdict import compare
    from replay.report.console import Console

    from .progress import warm_kernels

    outputs, options = outputs_of(given), options_of(given)
    base, new = two_sides(sides)
    warm_kernels(Console(stderr=True, highlight=False), KERNELS)
    with damage_named(f"one of the runs in {base} and {new}"):
        found = compare(base, new, options)
        write_outputs(found, outputs, Path("compare.html"), plain=given["plain"])
    raise SystemExit(int(found.exit_code))


def options_of(given: dict[str, Any]) -> Options:
    """Return the comparison options of a command line. UsageError if a value is invalid."""
    from replay.comparison.decision import Options
    from replay.comparison.given import parse_tolerance
    from replay.comparison.metrics import DEFAULT, parse_metric

    for name in given["metric"]:
        parse_metric(name)
    return Options(
        tolerance=parse_tolerance("--tolerance", given["tolerance"]),
        error_tolerance=parse_tolerance("--error-tolerance", given["error_tolerance"]),
        metrics=given["metric"] or DEFAULT,
        routes=given["route"] or given["routes"],
        design=given.get("design", "auto"),
        unit=given.get("unit", ""),
        fail_on=given["fail_on"],
        sequential=given.get("sequential", False),
    )


def write_outputs(found: Comparison, outputs: Outputs, page: Path, *, plain: bool) -> None:
    """Print the report, and write the outputs.

    The report is not printed if an output goes to stdout.
    """
    from replay.report.comparison import print_comparison
    from replay.report.outputs.of_comparison import ComparisonResult

    from .run import report_console_for

    if not outputs.takes_stdout:
        print_comparison(found, report_console_for(plain, quiet=False))
    outputs.write(ComparisonResult(found), page)
