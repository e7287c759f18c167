"""The text of a new scenario: the settings of a trace and a target, with the other settings in comments."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from replay import units
from replay.settings.derive.schema import written
from replay.settings.scenario import BODY_METHODS
from replay.settings.table import GROUPS, SETTINGS, Setting, settings_in
from replay.shown import json_shown, shown
from replay.trace import Trace
from replay.trace.proposals import Proposed

WIDTH = 100
BODIES_SHOWN = 10

RULES = {
    "watch": {"name": "queue", "json": "http://127.0.0.1:8080/stats", "pointer": "/queue/length"},
    "also": {"target": "kafka://127.0.0.1:9092/events", "methods": "all"},
    "variable": {"name": "user", "generate": "email"},
    "capture": {"route": "*", "name": "token", "json": "/token"},
    "check": {"route": "*", "status": "recorded"},
    "set": {"route": "*", "header": "X-User", "value": "{user}"},
    "ignore": {"route": "*", "field": "/updated_at"},
}
"""An example for each table of rules."""

TABLES: dict[str, dict[str, Any]] = {
    "headers": {"Tenant": "$TENANT"},
    "actions": {"registration": ["POST /v1/users"]},
    "values": {"registration": "9.99 EUR"},
}
"""An example for each table whose keys the user chooses."""

BODY_EXAMPLE = """# template = '{"id": "{uuid}", "email": "{email}", "client": {client}, "number": {n}}'"""


def scenario_text(
    trace: Trace, trace_name: str, target: str, *, everything: bool = False, proposed: Proposed | None = None
) -> str:
    """Return the text of a scenario with target and trace set, and with the proposed rules.

    Comments show the settings that most people change, or with `everything` all of them.
    """
    proposed = proposed or Proposed()
    methods = ", ".join(trace.manifest.methods)
    name = shown(" ".join(trace_name.split()))
    given: dict[str, Any] = {"target": target, "trace": trace_name}
    if proposed.writes:
        given["methods"] = "all"
    if proposed.cookies:
        given["cookies"] = True
    if proposed.split:
        given["split_clients"] = True
    more = "docs/settings.md describes every setting" + (
        "." if everything else "; replay init --all lists all settings."
    )
    lines = [
        f"# A scenario for {name}: {units.format_count(trace.rows)} requests ({methods}).",
        "# `replay run THIS-FILE` replays it. Flags override settings. Most have the name of their flag, with _ for -.",
        "# Values have units: 250ms, 30s, 1h30m; 500/s, 50/1m; 25%; 64KiB. A time without a unit is in seconds.",
        f"# {more}",
        "",
    ]
    wanted = [
        setting
        for setting in SETTINGS.values()
        if everything or setting.row.is_common or setting.key in given
    ]
    for group in GROUPS:
        own = [
            one for one in wanted if one.group == group and len(one.attributes) == 1 and not _is_table(one)
        ]
        if own and everything:
            lines += [f"# ---- {group} ----", ""]
        for setting in own:
            if setting.key == "cookies" and proposed.cookies:
                lines += _comment(f"Proposed from the recording. {proposed.cookies}.")
            if setting.key == "split_clients" and proposed.split:
                lines += _comment(f"Proposed from the recording. {proposed.split}.")
            lines += _setting(setting, given.get(setting.key))
    return "\n".join([*lines, *_tables(trace, wanted, everything), *_proposals(proposed)])


def _proposals(proposed: Proposed) -> Iterator[str]:
    """Yield the proposed rules, each with its figures. Rules that hold too rarely are in comments."""
    if not proposed.rules and not proposed.notes:
        return
    yield "# ---- proposed from the recording: check the figures, and remove what is wrong ----"
    yield ""
    for note in proposed.notes:
        yield from _comment(note)
    for rule in proposed.rules:
        yield from _comment(rule.why + ("" if rule.is_active else ": too rare, so not set"))
        mark = "" if rule.is_active else "# "
        yield f"{mark}[[{rule.table}]]"
        yield from (f"{mark}{key} = {_toml(value)}" for key, value in rule.keys.items())
        yield ""


def _is_table(setting: Setting) -> bool:
    """Return whether a top-level setting is a TOML table. Tables come after all plain keys."""
    return setting.table is not None or isinstance(setting.default, dict)


def _tables(trace: Trace, wanted: list[Setting], everything: bool) -> Iterator[str]:
    """Yield every table with a wanted key, and commented [[body]] rules for a trace that needs some."""
    for setting in SETTINGS.values():
        inner = [one for one in wanted if one.key.startswith(f"{setting.key}.")]
        if setting.key == "body":
            yield from _bodies(trace, setting, everything)
        elif setting.is_rules and everything:
            yield from _rules(setting)
        elif setting.key in TABLES and setting in wanted:
            yield from _comment(setting.help)
            yield f"[{setting.key}]"
            yield from (f"# {key} = {_toml(value)}" for key, value in TABLES[setting.key].items())
            yield ""
        elif setting.table is not None and inner:
            yield from _comment(setting.help)
            yield f"[{setting.key}]"
            for one in inner:
                yield from _setting(one, None)


def _setting(setting: Setting, value: Any) -> list[str]:
    """Return the lines of a setting: its description, and its value or, as a comment, its default or an example."""
    comment = _comment(setting.help + (f"; default: {setting.row.default}" if setting.row.default else ""))
    name = setting.name
    if value is not None:
        return [*comment, f"{name} = {_toml(value)}", ""]
    default = written(setting.default)
    empty = default is None or (isinstance(default, str | list | tuple | dict) and not default)
    return [*comment, f"# {name} = {_toml(setting.example if empty else default)}", ""]


def _bodies(trace: Trace, setting: Setting, everything: bool) -> Iterator[str]:
    """Yield a rule in comments for each route whose method has a body, for BODIES_SHOWN routes at most."""
    routes = [route.route for route in trace.manifest.routes if route.route.split(" ")[0] in BODY_METHODS]
    if not routes and not everything:
        return
    yield "# Bodies of requests by route, in place of recorded ones: one [[body]] table each."
    yield from _keys(setting)
    for name in routes[:BODIES_SHOWN] or ["POST /v1/users"]:
        yield from (
            "# [[body]]",
            f"# route = {_toml(name)}",
            BODY_EXAMPLE,
            '# content_type = "application/json"',
        )
    if len(routes) > BODIES_SHOWN:
        yield f"# ... and {len(routes) - BODIES_SHOWN} more routes may need one"
    yield ""


def _rules(setting: Setting) -> Iterator[str]:
    """Yield comments that list the keys of a table of rules, and an example."""
    assert setting.table is not None
    summary = (setting.table.__doc__ or "").strip().partition("\n")[0].rstrip(".")
    yield from _comment(f"{summary}: one [[{setting.key}]] table each.")
    yield from _keys(setting)
    yield f"# [[{setting.key}]]"
    yield from (f"# {key} = {_toml(value)}" for key, value in RULES[setting.key].items())
    yield ""


def _keys(setting: Setting) -> Iterator[str]:
    """Yield the keys of a table of rules, each as a comment."""
    assert setting.table is not None
    for one in settings_in(setting.table, group=setting.group):
        yield f"#   {one.key}: {one.help}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _toml(value: Any) -> str:
    """Format a plain value as TOML.

    JSON's strings, numbers, lists and booleans are valid TOML.
    """
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json_shown(json.dumps(value, ensure_ascii=False).encode()).decode()
