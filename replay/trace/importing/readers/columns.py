"""Finds the meaning of a table's columns or of JSON keys: from `--columns`, or else by their usual names."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import replace

from replay.errors import InputError, UsageError
from replay.trace.importing.registry import Options
from replay.units import nearest
from replay_native.importing import field_spec

from .layout import ROLES, UNITS_NS, Layout
from .usual_names import MAKERS, START_NAMES, USUAL_NAMES

_CONSTANTS = {
    "method": re.compile(r"[A-Za-z_][A-Za-z_-]{0,15}"),
    "path": re.compile(r"/[!-~]*"),
    "status": re.compile(r"[1-9]\d\d"),
}

_STAMP_ROLES = ("at", "end")


def roles_known() -> list[str]:
    """Return the roles accepted before `=` in --columns."""
    timed = [f"{name}_{unit}" for name in ("at", "end", "took") for unit in UNITS_NS]
    return [*ROLES, *timed]


def parse_columns(text: str) -> tuple[tuple[str, str], ...]:
    """Parse `at=COL,method=COL` into pairs.

    Raises UsageError for a part without `=`, an unknown role, a repeated role, and roles that exclude each other (`at`
    and `end`).
    """
    pairs: list[tuple[str, str]] = []
    taken: dict[str, str] = {}
    for part in next(csv.reader([text]), []) if text else []:
        role, equals, column = part.partition("=")
        role = role.strip()
        if not equals or not column:
            raise UsageError(
                f"--columns: {part!r} is not ROLE=COLUMN",
                hint="write ROLE=COLUMN, such as at=timestamp,path=url",
            )
        if role not in roles_known():
            guess = nearest(role, roles_known())
            meant = f" (did you mean {guess}?)" if guess else ""
            raise UsageError(f"--columns: no role {role!r}{meant}", hint=f"roles: {', '.join(roles_known())}")
        name = _split_role(role)[0]
        before = taken.setdefault("when" if name in _STAMP_ROLES else name, role)
        if role in dict(pairs):
            raise UsageError(f"--columns: {role} is given twice")
        if before != role:
            raise UsageError(f"--columns: {before} and {role} exclude each other", hint="give one of them")
        pairs.append((role, column))
    return tuple(pairs)


def _split_role(role: str) -> tuple[str, int]:
    """Split `took_ms` into the name `took` and the ns per ms.

    Without a unit the second value is 0. The unit of a time is then determined from its values, and each duration
    needs a unit of its own.
    """
    name, _, unit = role.rpartition("_")
    return (name, UNITS_NS[unit]) if name in ("at", "end", "took") and unit in UNITS_NS else (role, 0)


def column_place(wanted: str, names: list[str]) -> int:
    """Return the index of a column; -1 if there is none.

    `wanted` is its name (case is ignored if necessary), or its number, counted from 1.
    """
    if wanted in names:
        return names.index(wanted)
    folded = [name.casefold() for name in names]
    if wanted.casefold() in folded:
        return folded.index(wanted.casefold())
    return int(wanted) - 1 if wanted.isdigit() and 0 < int(wanted) <= len(names) else -1


def _taken(
    options: Options, names: list[str], where: str, usual_names: Mapping[str, tuple[str, ...]]
) -> tuple[dict[str, int], dict[str, str]]:
    """Return column indexes by role, and constants by role.

    Raises InputError if a column of `--columns` does not exist or has two roles.
    """
    found: dict[str, int] = {}
    constants: dict[str, str] = {}
    for role, wanted in options.columns:
        index = column_place(wanted, names)
        if index in found.values():
            raise InputError(f"--columns: {names[index]!r} has two roles", hint="give each column one role")
        if index >= 0:
            found[role] = index
        elif role in _CONSTANTS and _CONSTANTS[role].fullmatch(wanted):
            constants[role] = wanted
        else:
            guess = nearest(wanted, names)
            meant = f" (did you mean {guess}?)" if guess else ""
            raise InputError(
                f"{where} has no column {wanted!r}{meant}", hint=f"its columns: {', '.join(names[:40])}"
            )
    taken = {_split_role(role)[0] for role in (*found, *constants)}
    taken |= {"at", "end"} if taken & {"at", "end"} else set()
    taken |= {"request", "method", "path", "query"} if "request" in taken else set()
    taken |= {"request"} if taken & {"method", "path"} else set()
    taken |= {"client", "forwarded"} if taken & {"client", "forwarded"} else set()
    for role, usual in _names_by_role(names, usual_names):
        name = _split_role(role)[0]
        indexes = [
            i for i in (column_place(each, names) for each in usual) if i >= 0 and i not in found.values()
        ]
        if name not in taken and indexes:
            found[role] = indexes[0]
            taken |= {name, "at", "end"} if name in _STAMP_ROLES else {name}
            if name == "client" and len(indexes) > 1:
                found["client_other"] = indexes[1]
    return found, constants


def _names_by_role(
    names: list[str], usual_names: Mapping[str, tuple[str, ...]]
) -> list[tuple[str, tuple[str, ...]]]:
    """Return the roles and the usual names of their columns, in search order."""
    if usual_names is not USUAL_NAMES:
        return list(usual_names.items())
    lowered = {name.casefold() for name in names}
    maker = next((roles for known, roles in MAKERS if known <= lowered), {})
    return [*((role, (name,)) for role, name in maker.items()), *START_NAMES.items(), *USUAL_NAMES.items()]


def layout_of(
    options: Options,
    names: list[str],
    where: str,
    usual_names: Mapping[str, tuple[str, ...]] = USUAL_NAMES,
) -> tuple[Layout, dict[str, int]]:
    """Return the layout of a table with these columns, and the index of the column for each role.

    The layout lacks the delimiter or the keys, which the caller adds. Raises InputError if no column is a timestamp, or
    if a column of `--columns` does not exist or has two roles.
    """
    found, constants = _taken(options, names, where, usual_names)
    stamps = [role for role in found if _split_role(role)[0] in _STAMP_ROLES]
    if not stamps:
        raise InputError(
            f"{where} does not say which column is the time of a request",
            hint=f"replay import --columns at=COLUMN gives it; the columns: {', '.join(names[:40])}",
        )
    ended = _split_role(stamps[0])[0] == "end"
    tooks = [role for role in found if _split_role(role)[0] == "took"]
    at_unit_ns = _split_role(stamps[0])[1]
    layout = Layout(
        stamp="end" if ended else "start",
        subtracts=ended and bool(tooks),
        took_unit_ns=_split_role(tooks[0])[1] if tooks else 1,
        at_unit_ns=at_unit_ns,
    )
    if "request" not in found:
        method = constants.get("method", "" if "method" in found else "GET")
        path = constants.get("path", "" if "path" in found else "/")
        layout = replace(layout, method=method, path=path)
    return replace(layout, status=int(constants.get("status", -1))), found


def role_number(role: str) -> int:
    """Return the number that the kernels use for a role of `--columns`."""
    name = _split_role(role)[0]
    own = {"took": field_spec.TOOK, "client_other": field_spec.CLIENT_OTHER}
    return own[name] if name in own else ROLES[name]
