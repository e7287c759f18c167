"""`replay peak`: finds the highest load that a target sustains, or tests whether it recovers from a surge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from replay.settings.verbs import SET_BY_PEAK

from .cluster_options import cluster_options
from .flags import flags_of_all, settings_flags
from .help import GroupedCommand
from .options import out_option
from .outputs import output_options

SETTINGS = tuple(key for key in flags_of_all() if key not in SET_BY_PEAK)
"""The settings that have a flag here. A search for the peak sets the others itself."""

WORDS = {
    "slo": "Objective with its unit: 'p99<250ms' [default: errors<0.1% and errors<1%].",
    "window.from": "Start of the part to hold; with --until, start of the window to search [default: the busiest part].",
    "window.until": "End (exclusive) of the window to search for the parts of the trials and the hold.",
}


@click.command(
    name="peak",
    cls=GroupedCommand,
    short_help="Find the highest load that a target sustains, and whether it recovers.",
)
@click.argument("paths", nargs=-1, metavar="SCENARIO.toml|TRACE")
@settings_flags(SETTINGS, words=WORDS)
@out_option("Folder for the runs [default: runs/NAME-TIME].")
@click.option(
    "--lowest", default="0.25", metavar="K", show_default=True, help="First and lowest scale to try."
)
@click.option("--highest", default="64", metavar="K", show_default=True, help="Highest scale to try.")
@click.option(
    "--width", default="2%", metavar="SHARE", show_default=True, help="Relative precision of the peak."
)
@click.option("--trial", default="15s", metavar="TIME", show_default=True, help="Duration of a trial.")
@click.option("--hold", default="60s", metavar="TIME", show_default=True, help="How long the peak is held.")
@click.option(
    "--votes",
    type=click.Choice(["1", "3", "5"]),
    default="3",
    show_default=True,
    help="Most trials at each load; their majority decides.",
)
@click.option(
    "--surge",
    metavar="K",
    help="Test recovery instead: run the baseline, K times the baseline, then the baseline again.",
)
@click.option(
    "--trigger", default="20s", metavar="TIME", show_default=True, help="With --surge: length of the surge."
)
@cluster_options
@output_options("peak.html in the folder of the runs")
@click.option("--plain", is_flag=True, help="No colours.")
def command(
    paths: tuple[str, ...], out: Path | None, lowest: str, highest: str, width: str, trial: str, hold: str,
    votes: str, surge: str | None, trigger: str, plain: bool, **given: Any,
) -> None:  # fmt: skip
    """Find the highest scale of a trace that meets the objectives, hold that load, and then lower it again.

    A trial replays the busiest part of the recording that is --trial long. The hold replays the busiest part around it
    that is --hold long, at the same mean rate. --from alone sets where the hold's part starts; --until, with or without
    --from, limits where both parts are searched for. With --cluster, each trial is a run over many machines.

    Exit codes: 0 found, 1 a later trial could not be run, 3 none (or none that could be held), 4 the generator was the
    limit, 99 did not recover, or most responses have a worse status than recorded even at the lowest load.
    """
    from .peak_search import find

    raise SystemExit(
        find(paths, out, (lowest, highest, width, int(votes)), (trial, hold, trigger), surge, plain, given)
    )
