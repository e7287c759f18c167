"""`replay report`: prints the report of a run again, or writes its figures for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from replay.errors import UsageError

from .outputs import Outputs, output_options, outputs_of
from .streams import tell

if TYPE_CHECKING:
    from replay.results.run import Run


def _is_run(text: str) -> bool:
    """Return whether an argument is the folder of a run."""
    return Path(text).is_dir()


@click.command(name="report", short_help="Show the report of a run.")
@click.argument("run", type=click.Path(path_type=Path), required=False)
@output_options("report.html in the run's folder", _is_run, spaced=("html",))
@click.option(
    "--hgrm",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the percentile distribution of each histogram to DIR, for HdrHistogram's plotters.",
)
def command(run: Path | None, hgrm: Path | None, **given: Any) -> None:
    """Print the report of RUN, a run folder [default: the newest one in runs/].

    With --json, --junit, --markdown, --html or --hgrm, that output is written instead. A run that was killed is first
    completed from the counts of its lanes.
    """
    from replay.errors import damage_named
    from replay.results.run import load_run

    outputs = outputs_of(given, measures=False)
    folder = run if run is not None else _newest()
    loaded = load_run(folder)
    if loaded.recovered:
        tell(
            f"the run in {folder} was killed; its results were rebuilt from the counts of its lanes", err=True
        )
    with damage_named(str(folder)):
        _show(loaded, outputs, hgrm)


def _newest() -> Path:
    """Print which run in runs/ is the newest, and return its folder. UsageError if none can be read."""
    from replay.results.listing import list_runs

    from .places import RUNS

    listed = [run for run in list_runs(RUNS).runs if not run.problem]
    if not listed:
        raise UsageError(f"there is no run in {RUNS}/ that can be read", hint="give one: replay report RUN")
    tell(f"{listed[0].path}, the newest run of {RUNS}/", err=True)
    return listed[0].path


def _show(loaded: Run, outputs: Outputs, hgrm: Path | None) -> None:
    """Write the requested outputs, or print the report if there are none."""
    from replay.report.outputs.of_run import RunResult

    if hgrm is not None:
        from replay.results.hgrm import export
        from replay.results.hlog import read_hlog

        written = export(read_hlog(loaded.folder.totals).by_tag(), hgrm)
        tell(f"{len(written)} distributions written to {hgrm}", err=True)
    outputs.write(RunResult(loaded), loaded.folder.path / "report.html")
    if hgrm is None and not outputs.any:
        from replay.report.page import report_console
        from replay.report.terminal import print_report

        print_report(loaded, report_console())
