"""Keeps the tables of settings in docs/twin.md current: `python -m replay.staging.twin.spec_tables docs/twin.md`.

Below each heading of TABLES the page has a table with a row for each setting.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from replay.files import write_whole
from replay.settings.kinds import Kind

from . import spec

TABLES: dict[str, type[msgspec.Struct]] = {
    "The file": spec.Twin,
    "`[services.NAME]`": spec.Service,
    "`[services.NAME.routes.NAME]`": spec.Route,
    "`[services.NAME.calls.NAME]`": spec.Call,
    "`[services.NAME.calls.NAME.breaker]`": spec.Breaker,
    "`[services.NAME.database]`": spec.Database,
    "`[services.NAME.cache]`": spec.Cache,
    "`[services.NAME.jobs]`": spec.Jobs,
    "`[services.NAME.autoscaler]`": spec.Autoscaler,
    "`[balancer]`": spec.Balancer,
    "`[dns]`": spec.Dns,
    "`[bus]`": spec.Bus,
    "`[bus.topics.NAME]`": spec.Topic,
}
"""The struct of each table, by the table's heading."""

_HEAD = "| key | default | meaning |\n|---|---|---|\n"
_TABLE = re.compile(rf"(?m)^### (?P<heading>.*)\n\n{re.escape(_HEAD)}(?P<rows>(?:\|.*\n)*)")


def _default(field: msgspec.structs.FieldInfo) -> str:
    """Return a field's default as a table shows it."""
    if field.required:
        return "required"
    value: Any = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Kind):
        value = value.written()
    if isinstance(value, tuple):
        value = ", ".join(value)
    return "none" if value in (None, "", {}) else f"`{value}`"


def _rows(struct: type[msgspec.Struct]) -> Iterator[str]:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        (meta,) = (part for part in hints[field.name].__metadata__ if part.description)
        yield f"| `{field.encode_name}` | {_default(field)} | {meta.description} |\n"


def with_tables(page: str) -> str:
    """Return the page with its tables regenerated. Raises KeyError for a table below another heading."""
    return _TABLE.sub(
        lambda found: f"### {found['heading']}\n\n{_HEAD}{''.join(_rows(TABLES[found['heading']]))}", page
    )


def headings_of(page: str) -> list[str]:
    """Return the headings of the page's tables of settings."""
    return [found["heading"] for found in _TABLE.finditer(page)]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_whole(path, with_tables(path.read_text(encoding="utf-8")).encode())
