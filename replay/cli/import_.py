"""`replay import`: makes a trace from recordings, and prints a summary."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import rich.console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from replay import formats, units
from replay.report.console import Console, Table
from replay.shown import json_shown, shown

from .options import out_option
from .reading_options import contents_options, format_options, options_of

if TYPE_CHECKING:
    from replay.trace import Manifest, Trace
    from replay.trace.importing.pipeline import Progress as ImportProgress
    from replay.trace.importing.registry import KeptResponses

ROUTES_SHOWN = 6
FOLDED_SHOWN = 3
LEFT_OUT_SHOWN = 3
NAMES_SHOWN = 8

_LOG_ENDINGS = frozenset({".gz", ".log", ".txt", ".zst", ".bz2", *(f".{number}" for number in range(1, 100))})


def default_output(log: str) -> Path:
    """Return the default name of a trace: that of the first log without its endings, in the working directory.

    `/var/log/access.log.1.gz` becomes access.trace.
    """
    name = "stdin" if log == "-" else Path(log).name
    while Path(name).suffix in _LOG_ENDINGS and Path(name).stem:
        name = Path(name).stem
    return Path(f"{name}.trace")


def rejected_lines(manifest: Manifest) -> list[Text]:
    """Return a line for each reason to reject entries, with its count and its first example."""
    shown = []
    for reason, count in manifest.rejected.items():
        line = Text(f"{count:,} {reason}")
        example = next((each for each in manifest.rejected_examples if each.reason == reason), None)
        if example is not None:
            line.append(f"  {Path(example.file).name}:{example.line}: {example.text}", style="dim")
        shown.append(line)
    return shown


def left_out_lines(manifest: Manifest) -> list[Text]:
    """Return a line for each of the first LEFT_OUT_SHOWN skipped files, and one that counts the other skipped files."""
    lines = [Text(file.why, "yellow") for file in manifest.left_out[:LEFT_OUT_SHOWN]]
    more = len(manifest.left_out) - LEFT_OUT_SHOWN
    return [*lines, Text(f"and {units.counted(more, 'more file')}", "dim")] if more > 0 else lines


def facts() -> Table:
    """Return an empty two-column table of names and facts."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def span_text(trace: Trace) -> str:
    """Return the first and the last moment in the log's time zone, or else in UTC, and the time between them."""
    zone = units.parse_zone(trace.manifest.time_zone or "UTC")
    first, last = (units.format_moment(at_ns, zone) for at_ns in (trace.start_ns, trace.end_ns))
    changed = "; its time zone changes" if trace.manifest.time_zone_changed else ""
    return f"{first} to {last} ({units.format_duration(trace.end_ns - trace.start_ns)}){changed}"


def stamps_text(manifest: Manifest) -> str:
    """Return the resolution and the meaning of the recorded timestamps, and whether they were spread."""
    meaning = {
        "start": "at the start of a request",
        "end": "at the end of a request",
        "unknown": "at the start or the end of a request: the log does not show which",
    }
    text = f"every {units.format_duration(manifest.resolution_ns)}, {meaning[manifest.stamp]}"
    if manifest.jitter.done:
        text += f"; spread within that time with seed {manifest.jitter.seed}"
    return text


def actions_text(manifest: Manifest) -> list[str]:
    """Return a line for each business action, with its share of the requests and its routes."""
    total = max(manifest.rows, 1)
    return [
        f"{name} {units.format_share(sum(route.rows for route in routes) / total)}:"
        f" {', '.join(route.route for route in routes)}"
        for name, routes in manifest.actions().items()
    ]


def folded_lines(manifest: Manifest) -> list[Text]:
    """Return lines about the routes that combine the most path names."""
    folded = sorted(manifest.routes_folded.items(), key=lambda item: -item[1])
    lines = [Text(f"{names:,} names combined as {label}") for label, names in folded[:FOLDED_SHOWN]]
    if len(folded) > FOLDED_SHOWN:
        lines.append(Text(f"and {len(folded) - FOLDED_SHOWN:,} more (routes_folded in the manifest)", "dim"))
    return lines


def names_text(manifest: Manifest) -> str:
    """Return the names of replaced secrets, most frequent first: ` (token 5, code 3)`. Empty without secrets."""
    names = [f"{name} {count:,}" for name, count in manifest.secrets_by_name.items()]
    if not names:
        return ""
    more = f" and {len(names) - NAMES_SHOWN:,} more names" if len(names) > NAMES_SHOWN else ""
    return f" ({', '.join(names[:NAMES_SHOWN])}{more})"


PLACES_SHOWN = 6


def changed_lines(manifest: Manifest) -> list[Text]:
    """Return lines about the scrubbed values, by place and name, each with how it was changed."""
    lines = [
        Text(
            f"{change['count']:,} {change['place']} {shown(str(change['name']))}: {WORDS_OF_HOW[str(change['how'])]}"
        )
        for change in manifest.scrubbed[:PLACES_SHOWN]
    ]
    more = len(manifest.scrubbed) - PLACES_SHOWN
    return (
        [*lines, Text(f"and {more:,} more (options.scrubbed in the manifest)", "dim")] if more > 0 else lines
    )


WORDS_OF_HOW = {
    "pseudonym": "pseudonym", "fake": "fake", "drop": "left out", "email": "fake", "phone": "fake", "card": "fake",
    "iban": "fake",
}  # fmt: skip

EXAMPLE_CHARS = 100


def example_lines(trace: Trace) -> list[Text]:
    """Return a few requests as they were imported, one line each."""
    from replay.trace.examples import examples

    zone = units.parse_zone(trace.manifest.time_zone or "UTC")
    lines = []
    for example in examples(trace, zone):
        status = "status unknown" if example.status < 0 else str(example.status)
        took = "duration unknown" if example.took_ns < 0 else f"took {units.format_duration(example.took_ns)}"
        asked = shown(f"{example.method} {example.host}{example.target}")
        asked = asked if len(asked) <= EXAMPLE_CHARS else asked[: EXAMPLE_CHARS - 1] + "…"
        lines.append(Text(f"{example.at}  client {example.client}  {asked}  {status}, {took}"))
    return lines


def unknown_text(manifest: Manifest) -> str:
    """Return the counts of invalid values by field."""
    return ", ".join(f"{count:,} {name}" for name, count in manifest.unknown_values.items())


def responses_text(manifest: Manifest) -> str:
    """Return how many requests have a recorded response, and how many responses have a body."""
    text = f"recorded for {manifest.responses:,} requests ({units.format_share(manifest.responses / manifest.rows)})"
    text += f", {manifest.response_bodies:,} with their bodies"
    cut = manifest.response_bodies_cut
    return f"{text} ({cut:,} of them cut)" if cut else text


def assumed_lines(manifest: Manifest) -> list[Text]:
    """Return the assumptions that the import made, one sentence each."""
    return [Text(shown(sentence), "yellow") for sentence in manifest.assumptions]


def as_json(trace: Trace) -> bytes:
    """Return the summary of an import as JSON."""
    from replay.trace.examples import examples

    manifest = trace.manifest
    data = {
        "trace": str(trace.path),
        "format": manifest.importer,
        "wrappers": sorted({source.wrapper for source in manifest.sources if source.wrapper}),
        "rows": manifest.rows,
        "lines": manifest.lines,
        "rejected": manifest.rejected,
        "left_out": [file.name for file in manifest.left_out],
        "assumptions": manifest.assumptions,
        "unknown_values": manifest.unknown_values,
        "start_ns": trace.start_ns,
        "end_ns": trace.end_ns,
        "stamp": manifest.stamp,
        "time_zone": manifest.time_zone,
        "clients": manifest.clients,
        "methods": manifest.methods,
        "responses": manifest.responses,
        "response_bodies": manifest.response_bodies,
        "response_bodies_cut": manifest.response_bodies_cut,
        "secrets_dropped": manifest.secrets_dropped,
        "keep_secrets": manifest.options.get("keep_secrets", False),
        "scrubbed": manifest.scrubbed,
        "examples": examples(trace, units.parse_zone(manifest.time_zone or "UTC")),
    }
    return msgspec.json.format(msgspec.json.encode(data), indent=2)


def _summary(trace: Trace) -> Table:
    manifest, table = trace.manifest, facts()
    share = units.format_share(manifest.rows / max(manifest.lines, 1))
    table.add_row("requests", f"{manifest.rows:,} of {manifest.lines:,} lines ({share})")
    for index, line in enumerate(rejected_lines(manifest)):
        table.add_row("rejected" if index == 0 else "", line)
    for index, line in enumerate(left_out_lines(manifest)):
        table.add_row("left out" if index == 0 else "", line)
    for index, line in enumerate(example_lines(trace)):
        table.add_row("examples" if index == 0 else "", line)
    for index, line in enumerate(assumed_lines(manifest)):
        table.add_row("assumed" if index == 0 else "", line)
    if manifest.unknown_values:
        table.add_row("unknown", f"{unknown_text(manifest)}: invalid, and treated as unknown")
    table.add_row("span", span_text(trace))
    table.add_row("stamps", stamps_text(manifest))
    table.add_row("clients", f"{manifest.clients:,} (keyed hashes; addresses are not kept)")
    table.add_row("methods", ", ".join(manifest.methods))
    routes = [f"{route.route} {units.format_share(route.rows / manifest.rows)}" for route in manifest.routes]
    table.add_row(
        "routes", f"{len(routes):,}: {', '.join(routes[:ROUTES_SHOWN])}{', …' * (len(routes) > ROUTES_SHOWN)}"
    )
    if manifest.responses:
        table.add_row("responses", responses_text(manifest))
    for index, text in enumerate(actions_text(manifest)):
        table.add_row("actions" if index == 0 else "", Text(text))
    for index, line in enumerate(folded_lines(manifest)):
        table.add_row("folded" if index == 0 else "", line)
    if manifest.secrets_dropped:
        dropped = ", ".join(
            f"{count:,} {what.replace('_', ' ').removesuffix('s' if count == 1 else '')}"
            for what, count in manifest.secrets_dropped.items()
        )
        table.add_row("secrets", f"{dropped} replaced{names_text(manifest)}")
    for index, line in enumerate(changed_lines(manifest)):
        table.add_row("changed" if index == 0 else "", line)
    if manifest.options.get("keep_secrets"):
        table.add_row(
            "secrets", Text("kept unchanged (--keep-secrets): only you can read this trace", "yellow")
        )
    table.add_row("trace", Text(str(trace.path), style="bold"))
    return table


class ProgressBar:
    """A progress bar over the bytes of a log, with lines per second.

    It is shown only on a terminal, from the first `update` on.
    """

    def __init__(self, console: rich.console.Console) -> None:
        self._bar = Progress(
            TextColumn("importing"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[lines]} lines, {task.fields[rate]} per second"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("import", total=None, lines="0", rate="-")

    def __enter__(self) -> ImportProgress:
        return self.update

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def update(self, done: int, total: int, lines: int) -> None:
        """Show the progress. The arguments are those of `replay.trace.importing.pipeline.Progress`."""
        self._bar.start()
        elapsed_s = self._bar.tasks[0].elapsed or 0.0
        rate = f"{lines / elapsed_s:,.0f}" if elapsed_s > 0.5 else "-"
        known = None if total < 0 else total
        self._bar.update(self._task, completed=done, total=known, lines=f"{lines:,}", rate=rate)


@click.command(name="import", short_help="Turn logs and other recordings into a trace.")
@click.argument("logs", nargs=-1, required=True, metavar="LOG...")
@out_option("Trace to write [default: LOG.trace in the working directory].")
@format_options
@click.option(
    "--service",
    default="",
    metavar="NAME",
    help="With spans: import only the requests that this service received.",
)
@click.option(
    "--responses",
    type=click.Choice(formats.KEPT_RESPONSES),
    default="text",
    show_default=True,
    help="What to keep of recorded responses: nothing, sizes and digests, text bodies too, or all bodies.",
)
@click.option("--no-jitter", is_flag=True, help="Do not spread coarse timestamps.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed for spreading coarse timestamps.",
)
@contents_options
@click.option("--json", "json_wanted", is_flag=True, help="Print the summary of the import as JSON.")
@click.option("--force", is_flag=True, help="Replace the trace if it exists.")
def command(
    logs: tuple[str, ...],
    out: Path | None,
    format_name: str | None,
    service: str,
    responses: KeptResponses,
    no_jitter: bool,
    seed: int,
    json_wanted: bool,
    force: bool,
    **given: Any,
) -> None:
    """Make a trace from recordings: rotated files in any order, folders, gzip or zstd, or - for standard input.

    Coarse timestamps are spread within their resolution. Client addresses are not kept. Secrets get pseudonyms, except as
    --keep-secrets and --scrub set.
    """
    from replay.trace.importing import import_files

    options = dataclasses.replace(options_of(given), responses=responses, service=service)
    with ProgressBar(Console(stderr=True)) as progress:
        trace = import_files(
            logs,
            out or default_output(logs[0]),
            format=format_name,
            jitter=not no_jitter,
            seed=seed,
            options=options,
            overwrite=force,
            progress=progress,
        )
    if json_wanted:
        click.echo(json_shown(as_json(trace)))
        return
    console = Console(highlight=False)
    console.print(_summary(trace))
    for sentence in options.routes.idle(trace.manifest.routes):
        console.print(Text(f"{given['rules_file']}: {sentence}", "yellow"))
