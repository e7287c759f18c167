"""Keeps the tables of the catalog in docs/ current: `python -m replay.ledger.catalog_tables docs/*.md`.

A page has a table between `<!-- catalog: NAME -->` and `<!-- catalog ends -->`. NAME is a key of TABLES.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from replay.files import write_whole

from .catalog import ALIASES, COUNTERS, ERRORS, HISTOGRAMS, OK, OUTCOMES, RETRYABLE, UNSENT_REASONS
from .metrics import METRICS

_BLOCK = re.compile(r"(<!-- catalog: ([a-z ]+) -->\n).*?(<!-- catalog ends -->)", re.DOTALL)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _histograms() -> str:
    return _table(
        ("histogram", "is", "of", "means", "closed loop", "recorded"),
        (
            (
                f"`{row.tag}`",
                row.formula,
                row.of,
                row.words,
                "yes" if row.closed_loop else "",
                row.only,
            )
            for row in HISTOGRAMS
        ),
    )


def _outcomes() -> str:
    return _table(
        ("outcome", "is", "account", "counts as an error"),
        ((f"`{row.name}`", row.words, row.account, "yes" if row.failed else "") for row in OUTCOMES),
    )


def _accounts() -> str:
    reasons = " + ".join(reason.counter for reason in UNSENT_REASONS)
    return (
        f"    planned = sent + {reasons}\n"
        "    sent    = ok + error + timeout + in_flight\n"
        f"    ok      = {' + '.join(OK)}\n"
        f"    error   = {' + '.join(ERRORS)}\n"
    )


def _unsent() -> str:
    return _table(
        ("counter", "why a request was not sent", "to blame"),
        (
            (f"`{row.counter}`", row.words, "the target, or the generator" if row.of_target else "")
            for row in UNSENT_REASONS
        ),
    )


def _counters() -> str:
    kinds = {
        "count": "",
        "level": "goes up and down",
        "most": "a maximum",
        "longest": "a maximum",
        "stamp": "an instant",
    }
    return _table(
        ("counter", "counts", "unit", ""),
        ((f"`{row.name}`", row.words, row.unit, kinds[row.kind]) for row in COUNTERS),
    )


def _tags() -> str:
    rows = [f"`{row.tag}`" + (f" ({row.only})" if row.only else "") for row in HISTOGRAMS]
    return ", ".join(rows) + "\n"


def _objectives() -> str:
    others = {name: alias for alias, name in ALIASES.items()}
    rows = [row.name for row in HISTOGRAMS if row.slo]
    names = [f"`{name}`" + (f" (or `{others[name]}`)" if name in others else "") for name in rows]
    return f"  Latencies: {', '.join(names)}.\n"


def _retried() -> str:
    return f"Outcomes that `on` may list: {', '.join(f'`{name}`' for name in RETRYABLE)}.\n"


def _metrics() -> str:
    return _table(
        ("metric", "type", "labels", "is", "unit"),
        (
            (f"`{row.name}`", row.kind, ", ".join(f"`{label}`" for label in row.labels), row.help, row.unit)
            for row in METRICS
        ),
    )


TABLES: dict[str, Callable[[], str]] = {
    "histograms": _histograms,
    "outcomes": _outcomes,
    "accounts": _accounts,
    "unsent reasons": _unsent,
    "counters": _counters,
    "tags": _tags,
    "objectives": _objectives,
    "retried outcomes": _retried,
    "metrics": _metrics,
}


def with_tables(page: str) -> str:
    """Return the page with its tables regenerated.

    Raises KeyError for a marker that names no table.
    """
    return _BLOCK.sub(lambda found: found[1] + TABLES[found[2]]() + found[3], page)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        write_whole(path, with_tables(path.read_text(encoding="utf-8")).encode())
