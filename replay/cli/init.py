"""`replay init`: writes a commented scenario for a trace and a target, or the JSON Schema of scenarios."""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from replay.errors import OutputError, UsageError, reason_of

from .flags import settings_flags
from .options import out_option

if TYPE_CHECKING:
    from replay.trace import Trace
    from replay.trace.proposals import Proposed


def write_new(path: Path, text: str) -> None:
    """Write a new file. OutputError if it exists or cannot be written; no partial file is left."""
    made = False
    try:
        with path.open("x", encoding="utf-8") as file:
            made = True
            file.write(text)
    except OSError as error:
        if made:
            path.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {reason_of(error)}") from None


@click.command(name="init", short_help="Write a commented scenario for a trace and a target.")
@click.argument("recordings", nargs=-1, metavar="TRACE|LOG")
@settings_flags(["target"])
@out_option("File to write [default: NAME.toml in the working directory].")
@click.option(
    "--all", "everything", is_flag=True, help="Write every setting, not only those that most people change."
)
@click.option(
    "--schema", is_flag=True, help="Print the JSON Schema of scenarios, for editors, instead of a scenario."
)
def command(
    recordings: tuple[str, ...], target: str | None, out: Path | None, everything: bool, schema: bool
) -> None:
    """Write a scenario in TOML: target and trace set, other settings at their defaults in comments.

    If the recording has headers or responses, the scenario also proposes session rules: values that requests take from
    earlier responses, values that are new for each client, and the passwords that you must set.
    """
    from .streams import tell

    if schema:
        _print_schema(out)
        return
    _check_target(target or "")
    if len(recordings) != 1:
        raise UsageError(
            "give exactly one trace or log",
            hint="import several logs to a trace first: replay import LOG..."
            if recordings
            else "replay init TRACE|LOG --target URL",
        )
    path = out or Path(f"{Path(recordings[0]).name.split('.')[0] or 'scenario'}.toml")
    if os.path.lexists(path):
        raise OutputError(f"{path} exists already: it is not overwritten", hint="give another file with -o")
    write_new(path, _text(recordings[0], path, target or "", everything))
    tell(f"{path} written; replay run {shlex.quote(str(path))} --dry-run shows its plan")


def _check_target(target: str) -> None:
    from replay.protocols.registry import parse_target

    parse_target(target)


def _print_schema(out: Path | None) -> None:
    """Print the schema, or write it to a new file."""
    from replay.settings.derive.files import SCHEMA

    text = SCHEMA.read_text(encoding="utf-8")
    if out is None:
        click.echo(text, nl=False)
    else:
        write_new(out, text)


def _text(recording: str, path: Path, target: str, everything: bool) -> str:
    """Return the text of a scenario for a recording. Its `trace` is relative to the scenario's folder."""
    from replay.report.console import Console
    from replay.trace.importing import open_trace

    from .import_ import ProgressBar
    from .scenario_text import scenario_text

    with tempfile.TemporaryDirectory(prefix="replay-") as area, ProgressBar(Console(stderr=True)) as progress:
        trace = open_trace([recording], Path(area) / "imported.trace", progress=progress)
        name = os.path.relpath(recording, path.parent)
        proposed = _proposed(trace, path)
        text = scenario_text(trace, name, target, everything=everything, proposed=proposed)
    _tell_proposed(proposed)
    return text


def _proposed(trace: Trace, path: Path) -> Proposed:
    """Return the proposed session rules; none if the recording has neither headers nor responses, or is from Kafka."""
    from replay.trace.proposals import Proposed, find_proposals, propose

    has_messages = trace.requests.has_headers or trace.manifest.responses
    if not has_messages or trace.manifest.importer == "kafka":
        return Proposed()
    keeps_secrets = bool(trace.manifest.options.get("keep_secrets"))
    return propose(
        find_proposals(trace), trace.requests.routes, keeps_secrets=keeps_secrets, scenario=path.stem
    )


def _tell_proposed(proposed: Proposed) -> None:
    """Print how many rules are proposed, and which variables the user must set."""
    from replay.units import counted

    from .streams import tell

    if proposed.rules or proposed.cookies:
        active = sum(rule.is_active for rule in proposed.rules) + bool(proposed.cookies)
        rare = sum(not rule.is_active for rule in proposed.rules)
        also = f", and {rare:,} in comments because they hold too rarely" if rare else ""
        tell(
            f"{counted(active, 'rule')} proposed from the recording{also}; the comment of each shows how often it holds"
        )
    if proposed.needed:
        tell(
            f"set these before a run, in the environment or with --set NAME=VALUE: {', '.join(proposed.needed)}"
        )
