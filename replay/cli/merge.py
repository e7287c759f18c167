"""`replay merge`: makes one run from the run folders of several agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .outputs import output_options, outputs_of
from .places import RUNS, result_folder


@click.command(name="merge", short_help="Merge the run folders of agents into one run.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Folder for the merged run [default: runs/merged-TIME].",
)
@output_options("report.html in the run's folder")
@click.option("--plain", is_flag=True, help="No colours.")
@click.option(
    "-q", "--quiet", is_flag=True, help="Print errors only; the exit code shows the result of the run."
)
def command(runs: tuple[Path, ...], out: Path | None, plain: bool, quiet: bool, **given: Any) -> None:
    """Merge the run folders of the agents of one run, RUN..., into one run, and print its report.

    `replay run --cluster` merges by itself. Use this verb if the coordinator died. Counts and histograms are added up
    exactly. The folder of a killed agent is completed first. Requests that no folder reports are counted as `unknown`.

    Exit codes are those of `replay run`.
    """
    from replay.cluster.merging import merge_runs
    from replay.report.outputs.of_run import RunResult
    from replay.report.terminal import print_report
    from replay.results.run import load_run

    from .run import exit_code, report_console_for

    outputs = outputs_of(given, measures=False)
    console = report_console_for(plain, quiet, stderr=outputs.takes_stdout)
    with result_folder(out, RUNS, "merged") as folder:
        document = merge_runs(runs, folder)
        loaded = load_run(folder)
        if not console.quiet:
            print_report(loaded, console)
        outputs.write(RunResult(loaded), folder / "report.html")
    raise SystemExit(exit_code(document))
