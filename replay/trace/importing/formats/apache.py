r"""Apache with a custom `LogFormat` (mod_log_config).

`%t` is the time of receipt, or of the end with `end:`. `%D` (µs), `%T` (s) and `%{ms}T` are durations.
"""

from __future__ import annotations

import re
from dataclasses import replace

from replay.errors import UsageError
from replay.trace.importing.readers.layout import (
    UNITS_NS,
    Layout,
    of_parts,
    without_escapes,
)
from replay.trace.importing.readers.templates import register_own
from replay_native.importing import field_spec

_DIRECTIVE = re.compile(r"%(?:!?\d+(?:,\d+)*)?[<>]?(?:\{([^}]*)\})?[<>]?(\^t[io]|\^FB|[a-zA-Z%])")
_KNOWN = frozenset("aAbBCDefhHiIkLlmnoOpPqrRsStTuUvVX%") | {"^ti", "^to", "^FB"}
_UNREAD = re.compile(r"%.{0,12}")
_DECLARED = re.compile(r'^\s*LogFormat\s+"((?:[^"\\]|\\.)*)"(?:\s+\S+)?\s*$', re.DOTALL)

_LETTERS = {
    "r": field_spec.REQUEST, "m": field_spec.METHOD_NAME, "U": field_spec.TARGET, "q": field_spec.QUERY,
    "h": field_spec.CLIENT_NAME, "a": field_spec.CLIENT_NAME, "s": field_spec.STATUS_CODE, "b": field_spec.SIZE,
    "B": field_spec.SIZE, "O": field_spec.SIZE, "v": field_spec.HOST, "V": field_spec.HOST,
    "D": field_spec.TOOK, "T": field_spec.TOOK,
}  # fmt: skip
_NAMED = {
    ("host", "i"): field_spec.HOST, ("user-agent", "i"): field_spec.AGENT,
    ("x-forwarded-for", "i"): field_spec.FORWARDED, ("x-real-ip", "i"): field_spec.FORWARDED,
}  # fmt: skip


def _role(argument: str, letter: str) -> int:
    if letter == "t":
        return field_spec.AT
    if argument and letter in "ieonC":
        return _NAMED.get((argument.lower(), letter), -1)
    return _LETTERS.get(letter, -1)


def unquoted(text: str) -> str:
    """Extract the format string from a LogFormat line, or from a bare string."""
    declared = _DECLARED.match(text)
    return without_escapes(declared[1] if declared else text).strip("\n")


def _unit_ns(argument: str, letter: str) -> int:
    """Return the unit of `%D` or `%T` in ns."""
    return UNITS_NS["us"] if letter == "D" else UNITS_NS.get(argument or "s", UNITS_NS["s"])


def _finest(text: str) -> int:
    """Return the position of the duration with the finest unit (the first of equal ones); -1 if there is none."""
    found = [
        (_unit_ns(match[1] or "", match[2]), match.start())
        for match in _DIRECTIVE.finditer(text)
        if _role(match[1] or "", match[2]) == field_spec.TOOK
    ]
    return min(found, default=(0, -1))[1]


def _literal(text: str, begin: int, end: int) -> str:
    """Return the literal text between two directives.

    Raises UsageError if it has a percent sign, which would begin a directive.
    """
    unread = _UNREAD.search(text, begin)
    if unread is not None and unread.start() < end:
        raise _unknown(unread[0])
    return text[begin:end]


def _unknown(directive: str) -> UsageError:
    return UsageError(
        f"the LogFormat has {directive!r}, which is not a directive of Apache's",
        hint="a percent sign is written %%; see mod_log_config for the directives",
    )


def layout_of(text: str) -> Layout:
    """Return the layout of a LogFormat.

    Raises UsageError if it has no time, no request, an unknown directive, or two fields with nothing between them.
    """
    literals, roles, names = [""], list[int](), list[str]()
    stamp, unit_ns, at, text = "start", UNITS_NS["s"], 0, unquoted(text)
    finest = _finest(text)
    for match in _DIRECTIVE.finditer(text):
        literals[-1] += _literal(text, at, match.start())
        at = match.end()
        argument, letter = match[1] or "", match[2]
        if letter not in _KNOWN:
            raise _unknown(match[0])
        if letter == "%":
            literals[-1] += "%"
            continue
        if letter == "t" and roles and roles[-1] == field_spec.AT:
            literals[-1] = ""
            continue
        role = _role(argument, letter)
        if role == field_spec.TOOK and match.start() != finest:
            role = -1
        if letter == "t":
            stamp = "end" if argument.startswith("end:") else stamp
            literals[-1] += "" if argument else "["
        if role == field_spec.TOOK and role not in roles:
            unit_ns = _unit_ns(argument, letter)
        roles.append(role)
        names.append(match[0])
        literals.append("]" if letter == "t" and not argument else "")
    literals[-1] += _literal(text, at, len(text))
    return _checked(literals, roles, names, stamp, unit_ns)


def _checked(literals: list[str], roles: list[int], names: list[str], stamp: str, unit_ns: int) -> Layout:
    if field_spec.AT not in roles:
        raise UsageError("the LogFormat has no time", hint="it needs %t")
    if not {field_spec.REQUEST, field_spec.TARGET} & set(roles):
        raise UsageError("the LogFormat does not contain the request", hint="it needs %r, or %m and %U%q")
    if field_spec.REQUEST in roles:
        parts = (field_spec.METHOD_NAME, field_spec.TARGET, field_spec.QUERY)
        roles = [-1 if role in parts else role for role in roles]
    literals, roles, names = _joined(literals, roles, names)
    layout = of_parts(literals, roles, names, escapes=field_spec.LOG, took_unit_ns=unit_ns)
    method = "" if {field_spec.REQUEST, field_spec.METHOD_NAME} & set(roles) else "GET"
    subtracts = stamp == "end" and field_spec.TOOK in roles
    return replace(layout, stamp="end" if stamp == "end" else "start", subtracts=subtracts, method=method)


def _joined(
    literals: list[str], roles: list[int], names: list[str]
) -> tuple[list[str], list[int], list[str]]:
    """Merge `%q` into the `%U` directly before it, for the first such pair."""
    for index in range(1, len(roles)):
        if not literals[index] and roles[index - 1 : index + 1] == [field_spec.TARGET, field_spec.QUERY]:
            return (
                literals[:index] + literals[index + 1 :],
                roles[:index] + roles[index + 1 :],
                names[:index] + names[index + 1 :],
            )
    return literals, roles, names


APACHE = register_own(
    "apache",
    "an Apache log in the format of --log-format",
    "LogFormat",
    lambda own: "%" in own and "$" not in own,
    layout_of,
)
