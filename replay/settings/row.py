"""The row of a setting: what its declaration contains besides its name, kind and default.

    timeout_ns: Annotated[
        Duration, row("Time limit for a complete response", "--timeout", lane=True)
    ] = Duration(30 * SECOND_NS)

The name in a file is the attribute's without its unit: `timeout`. The flags of every verb, the help, `replay init`,
the checks, the JSON Schema, the TypedDict, the lane's struct and docs/settings.md are derived from these rows
(`table.py`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from msgspec import Meta

_KEY = "row"
_UNITS = ("_ns", "_per_s", "_bytes", "_")


class Row(NamedTuple):
    """The part of a setting's declaration that msgspec does not need to decode it."""

    flags: tuple[str, ...] = ()
    metavar: str = ""
    default: str = ""
    used_by: str = ""
    is_lanes: bool = False
    is_positive: bool = False
    is_common: bool = False
    bare: str = ""


def row(
    text: str, *flags: str, metavar: str = "", default: str = "", used_by: str = "", lane: bool = False,
    positive: bool = False, common: bool = False, example: Any = None, bare: str = "", ge: int | None = None,
    le: int | None = None,
) -> Meta:  # fmt: skip
    """Declare a setting: its help text and flags.

    `default` is the text that help and docs show for the default. `used_by` names what uses the setting, if not every
    protocol does. `lane` passes it to the lanes. `positive` refuses 0. `common` puts it into the short form of `replay
    init`. `example` is the value that `replay init` shows if the default is empty. `bare` is the value of a flag
    without one (`--live`). `ge` and `le` are limits of a plain number.
    """
    facts = Row(flags, metavar, default, used_by, lane, positive, common, bare)
    return Meta(
        description=text, examples=None if example is None else [example], ge=ge, le=le, extra={_KEY: facts}
    )


def row_of(meta: Meta) -> Row:
    """Return the row in a declaration; an empty row if it has none."""
    found = (meta.extra or {}).get(_KEY)
    return found if isinstance(found, Row) else Row()


def key_of(attribute: str) -> str:
    """Return the name of an attribute in a file: `timeout` for `timeout_ns`, `from` for `from_`."""
    for unit in _UNITS:
        if attribute.endswith(unit):
            return attribute.removesuffix(unit)
    return attribute


class Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True, rename=key_of):
    """The base of every table of settings."""
