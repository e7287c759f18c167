"""`replay export`: writes a trace as a file for other programs."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from replay import formats, units
from replay.report.console import Console

from .options import out_option


@click.command(
    name="export", short_help="Write a trace as Parquet, CSV, .gor, HAR, vegeta targets or log lines."
)
@click.argument("trace", type=click.Path(path_type=Path))
@out_option(
    f"File to write: {', '.join(formats.with_brought('replay.exporters', formats.WRITTEN, '.'))}.",
    required=True,
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
def command(trace: Path, out: Path, force: bool) -> None:
    """Write a trace as a file for other programs. The ending of its name selects the format.

    Tables have at_ns, method, path, host, route, client, status, took_ns and bytes; -1 means unknown.
    """
    from replay.trace import Trace
    from replay.trace.exporting.export import export

    opened = Trace.open(trace)
    console = Console(stderr=True)
    columns = (TextColumn("exporting"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("export", total=opened.rows)
        export(opened, out, overwrite=force, progress=lambda done, _: bar.update(task, completed=done))
    size = units.format_bytes(out.stat().st_size)
    cut, is_table = opened.manifest.cut_rows, out.name.endswith((".csv", ".tsv", ".parquet"))
    left_out = "" if is_table or not cut else f" ({cut:,} left out, because their bodies are not complete)"
    rows = opened.rows - (0 if is_table else cut)
    Console(highlight=False).print(f"{out}: {units.counted(rows, 'request')}{left_out}, {size}")
