"""Measures the queries and the time of a lookup, for a name as written and for its absolute form.

The absolute form ends with a dot, so that no search domain is appended to it.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from .exchange import Query
from .lookup import Answer, lookup
from .settings import Settings

ROUNDS = 5
"""Lookups of each form, alternating. The times are medians, so that a server's cache favours neither form."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One form of a name: the queries of one lookup in order, and the median time of a lookup."""

    name: str
    answer: Answer
    queries: tuple[Query, ...]
    took_ns: int

    @property
    def sent(self) -> int:
        """The number of queries of one lookup."""
        return len(self.queries)


async def cost_of(name: str, settings: Settings) -> tuple[Cost, Cost]:
    """Measure the name as it is written, and its absolute form. Raises NameFailure if the name has no address.

    An address, or a name of the hosts file, has no absolute form; both results are then the same.
    """
    answer = await lookup(name, settings)
    absolute = f"{answer.found.rstrip('.')}." if answer.source == "dns" else name
    took: dict[str, list[int]] = {}
    queries: dict[str, list[Query]] = {}
    for _ in range(ROUNDS):
        for form in (name, absolute):
            queries[form] = []
            begin = time.monotonic_ns()
            answer = await lookup(form, settings, queries[form].append)
            took.setdefault(form, []).append(time.monotonic_ns() - begin)
    written, full = (
        Cost(form, answer, tuple(queries[form]), round(statistics.median(took[form])))
        for form in (name, absolute)
    )
    return written, full
