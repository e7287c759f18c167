"""Writes rules for the observed differences (`--accept`), to be reviewed and added to a scenario."""

from __future__ import annotations

from replay.shown import shown
from replay.units import format_share

from .findings import Differences, FieldFinding

_HEAD = """\
# Fields of responses that differ between {base} and {new}.
# Review each one, delete what must not differ, and move the rest into the scenario,
# or give this file to `replay diff --ignore`.
"""


def rules_text(found: Differences) -> str:
    """Return an `[[ignore]]` rule for each field in the verdict, with observed values as a comment.

    A field that differs only as a part of another one has no rule of its own.
    """
    parts = [_HEAD.format(base=_comment(found.base.label), new=_comment(found.new.label))]
    parts += [_rule(one) for one in found.different if not one.inside]
    if len(parts) == 1:
        parts.append("\n# The verdict lists no field: there is nothing to accept.\n")
    return "".join(parts)


def _rule(one: FieldFinding) -> str:
    lines = [f"# {one.kind}, in {format_share(one.across)} of the responses"]
    if one.examples:
        example = one.examples[0]
        lines.append(f"# request {example.number}: {_comment(example.base)} -> {_comment(example.new)}")
    lines += ["[[ignore]]", f"route = {_toml(one.route)}", f"field = {_toml(one.field)}"]
    return "\n" + "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return shown(text.replace("\n", " "))


def _toml(text: str) -> str:
    """Return a TOML basic string, with control characters escaped."""
    made = []
    for char in text:
        code = ord(char)
        if char in '"\\':
            made.append("\\" + char)
        elif code < 0x20 or code == 0x7F or shown(char) != char:
            made.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
        else:
            made.append(char)
    return '"' + "".join(made) + '"'
