"""`replay report`: say again what a run said, or hand its figures to other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from replay.shown import json_shown

from .streams import tell

if TYPE_CHECKING:
    from replay.results.run import Run


@click.command(name="report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print run.json, the figures for other tools, instead.")
@click.option(
    "--hgrm",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write each histogram's percentile distribution to DIR, for HdrHistogram's plotters.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it as one page with figures, for a browser, instead.",
)
def command(run: Path, as_json: bool, hgrm: Path | None, html: Path | None) -> None:
    """Print the report of RUN, the folder that `replay run -o` wrote.

    A run that was killed is made whole first, from what its lanes had counted.
    """
    from replay.errors import damage_named
    from replay.results.run import load_run

    loaded = load_run(run)
    if loaded.recovered:
        tell(f"{run} had been killed; its results were rebuilt from what its lanes had counted", err=True)
    with damage_named(str(run)):
        _show(loaded, as_json, hgrm, html)


def _show(loaded: Run, as_json: bool, hgrm: Path | None, html: Path | None) -> None:
    """Write what was asked for, or print the report."""
    if hgrm is not None:
        from replay.results.hgrm import export
        from replay.results.hlog import read_hlog

        written = export(read_hlog(loaded.folder.totals).by_tag(), hgrm)
        tell(f"{len(written)} distributions written to {hgrm}", err=True)
    if html is not None:
        from replay.report.run_page import write_run_page

        write_run_page(loaded, html)
        tell(f"{html} written", err=True)
    if as_json:
        click.echo(json_shown(loaded.folder.run.read_bytes()), nl=False)
    elif hgrm is None and html is None:
        from replay.report.page import report_console
        from replay.report.terminal import print_report

        print_report(loaded, report_console())
