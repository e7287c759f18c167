"""`replay init`: a commented scenario for a trace and a target, with every knob in it."""

from __future__ import annotations

import json
import os
import shlex
import tempfile
import textwrap
import typing
from pathlib import Path
from typing import Any

import click
import msgspec

from replay import units
from replay.errors import OutputError, reason_of
from replay.settings.file import keys_of, struct_of
from replay.settings.kinds import knob_text
from replay.settings.scenario import BODY_METHODS, Scenario
from replay.settings.target import parse_target
from replay.shown import json_shown, shown
from replay.trace import Trace

WIDTH = 100
BODIES_SHOWN = 10


def _toml(value: Any) -> str:
    """A plain value as TOML; JSON's strings, numbers, lists and booleans are TOML's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json_shown(json.dumps(value, ensure_ascii=False).encode()).decode()


def _meta(hint: Any) -> tuple[str, Any]:
    """What a knob says of itself, and an example of it."""
    metas = [part for part in typing.get_args(hint) if isinstance(part, msgspec.Meta)]
    description = next((meta.description for meta in metas if meta.description), "")
    examples = next((meta.examples for meta in metas if meta.examples), None)
    return description or "", examples[0] if examples else None


def _knob(name: str, hint: Any, value: Any, *, set_to: Any = None) -> list[str]:
    """A knob's lines: what it is, and its default commented out, or the value it is set to."""
    description, example = _meta(hint)
    lines = textwrap.wrap(description, WIDTH, initial_indent="# ", subsequent_indent="# ")
    if set_to is not None:
        return [*lines, f"{name} = {_toml(set_to)}", ""]
    empty = value is None or (isinstance(value, str | tuple | dict) and not value)
    return [*lines, f"# {name} = {_toml(example if empty else value)}", ""]


def _table(name: str, kind: type[msgspec.Struct], defaults: dict[str, Any]) -> list[str]:
    """A table of knobs, each at its default."""
    lines = [f"# {(kind.__doc__ or '').strip().partition(chr(10))[0]}", f"[{name}]"]
    for key, hint in keys_of(kind).items():
        lines += _knob(key, hint, defaults[key])
    return lines


def _bodies(trace: Trace, scenario_kind: type[msgspec.Struct]) -> list[str]:
    """A commented rule for each route that needs a body."""
    kind = struct_of(keys_of(scenario_kind)["body"])
    assert kind is not None
    routes = [route for route in trace.manifest.routes if route.route.split(" ")[0] in BODY_METHODS]
    lines = ["# Bodies of routes that the recording holds without them: one [[body]] table each."]
    for key, hint in keys_of(kind).items():
        lines.append(f"#   {key}: {_meta(hint)[0]}")
    for name in [route.route for route in routes[:BODIES_SHOWN]] or ["POST /v1/users"]:
        lines += [
            "# [[body]]",
            f"# route = {_toml(name)}",
            """# template = '{"id": "{uuid}", "email": "{email}", "client": {client}, "number": {n}}'""",
            '# content_type = "application/json"',
        ]
    if len(routes) > BODIES_SHOWN:
        lines.append(f"# ... and {len(routes) - BODIES_SHOWN} more routes need one")
    return [*lines, ""]


RULE_EXAMPLES = {
    "also": (
        "Further targets on the same timeline, in the same run: one [[also]] table each (docs/kafka.md).",
        {"target": "kafka://127.0.0.1:9092/events", "methods": "all"},
    ),
    "variable": (
        "Values of your own, by client or request: one [[variable]] table each.",
        {"name": "user", "generate": "email"},
    ),
    "capture": (
        "Values of answers, for the later requests of the same client: one [[capture]] table each.",
        {"route": "*", "name": "token", "json": "/token"},
    ),
    "check": (
        "What answers must be; others are mismatches: one [[check]] table each.",
        {"route": "*", "status": "recorded"},
    ),
    "set": (
        "Paths and headers made of values: one [[set]] table each (docs/sessions.md).",
        {"route": "*", "header": "X-User", "value": "{user}"},
    ),
}
"""Tables of rules, with what they are and an example."""


def _rules(name: str) -> list[str]:
    """What a table of rules can hold, and a commented example."""
    words, example = RULE_EXAMPLES[name]
    kind = struct_of(keys_of(Scenario)[name])
    assert kind is not None
    keys = [f"#   {key}: {_meta(hint)[0]}" for key, hint in keys_of(kind).items()]
    return [
        f"# {words}",
        *keys,
        f"# [[{name}]]",
        *(f"# {key} = {_toml(value)}" for key, value in example.items()),
        "",
    ]


def scenario_text(trace: Trace, trace_name: str, target: str) -> str:
    """The whole file: target and trace set, every other knob commented out at its default."""
    defaults = msgspec.to_builtins(Scenario(), enc_hook=knob_text)
    methods = ", ".join(trace.manifest.methods)
    lines = [
        f"# A scenario for {shown(' '.join(trace_name.split()))}: {units.format_count(trace.rows)} requests ({methods}).",
        "# replay run THIS-FILE replays it. Flags override keys: a key is its flag's name with _ for -.",
        "# Values carry their unit: 250ms, 30s, 1h30m; 500/s, 50/1m; 25%; 64KiB. A bare time is seconds.",
        "# Objectives need their units.",
        "",
    ]
    tables: list[str] = []
    given = {"target": target, "trace": trace_name}
    for name, hint in keys_of(Scenario).items():
        kind = struct_of(hint)
        if name == "body":
            tables += _bodies(trace, Scenario)
        elif name in RULE_EXAMPLES:
            tables += _rules(name)
        elif name == "headers":
            tables += [f"# {_meta(hint)[0]}", "[headers]", '# Tenant = "$TENANT"', ""]
        elif kind is not None:
            tables += _table(name, kind, defaults[name])
        else:
            lines += _knob(name, hint, defaults[name], set_to=given.get(name))
    return "\n".join([*lines, *tables])


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist. OutputError where it cannot be; nothing is then left of it."""
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
@click.argument("recordings", nargs=-1, required=True, metavar="TRACE|LOG")
@click.option(
    "--target", metavar="URL", required=True, help="Where to send: http[s]://HOST[:PORT][/BASE/PATH]."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The file [default: NAME.toml, here].")
def command(recordings: tuple[str, ...], target: str, out: Path | None) -> None:
    """Write a scenario in TOML: target and trace set, every other knob at its default in comments."""
    from replay.report.console import Console
    from replay.trace.importing import open_trace

    from .import_ import ProgressBar
    from .streams import tell

    parse_target(target)
    if len(recordings) > 1:
        raise click.UsageError("one trace or log; import several logs to a trace first: replay import LOG...")
    path = out or Path(f"{Path(recordings[0]).name.split('.')[0] or 'scenario'}.toml")
    if os.path.lexists(path):
        raise OutputError(f"{path} exists already: it is not overwritten", hint="give another -o")
    with tempfile.TemporaryDirectory(prefix="replay-") as area, ProgressBar(Console(stderr=True)) as progress:
        trace = open_trace(recordings, Path(area) / "imported.trace", progress=progress)
        beside = os.path.relpath(recordings[0], path.parent)
        text = scenario_text(trace, beside, target)
    write_new(path, text)
    tell(f"{path} written; replay run {shlex.quote(str(path))} --dry-run shows its plan")
