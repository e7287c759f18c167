"""The figures of a twin: counters with their rates, gauges, and the limits of figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

Number = int | float
Gauge = Callable[[], Number]


class Figures:
    """The figures of one process, by name. `NAME.limit` is the limit of NAME."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._before: dict[str, int] = {}
        self._rates: dict[str, Number] = {}
        self._gauges: dict[str, Gauge] = {}

    def count(self, name: str, by: int = 1) -> None:
        """Count an event. NAME is its total, and `NAME_per_s` is its rate."""
        self._counts[name] += by

    def declare(self, *names: str) -> None:
        """Declare counters, so that their figures exist from the start with the value 0."""
        for name in names:
            self._counts[name] += 0

    def total(self, name: str) -> int:
        """Return the total of a counter."""
        return self._counts[name]

    def gauge(self, name: str, value: Gauge, limit: Gauge | None = None) -> None:
        """Add a figure that is computed when it is requested. A limit of 0 means none."""
        self._gauges[name] = value
        if limit is not None:
            self._gauges[f"{name}.limit"] = limit

    def limit(self, name: str, limit: Gauge) -> None:
        """Set the limit of a figure."""
        self._gauges[f"{name}.limit"] = limit

    def tick(self, passed_s: float) -> None:
        """Compute the rates over the time that has passed. Call it about each second."""
        for name, count in self._counts.items():
            self._rates[f"{name}_per_s"] = round((count - self._before.get(name, 0)) / passed_s, 2)
        self._before = dict(self._counts)

    def document(self) -> dict[str, Number]:
        """Return all figures. A limit of 0 is left out, because it means no limit."""
        found: dict[str, Number] = {f"{name}_per_s": 0 for name in self._counts}
        found.update(self._rates)
        found.update(self._counts)
        for name, gauge in self._gauges.items():
            value = gauge()
            if value or not name.endswith(".limit"):
                found[name] = value
        return found
