"""Assigns routes to requests as they arrive, in a fixed number of rows.

The lines from before the run show which path segments are variable. A new route of a later request takes an unused
row; if none is left, the request counts under OTHERS.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from replay.naming import names_route
from replay.trace.route_rules import RouteRules
from replay.trace.routes import SLUG_CHILDREN, TEMPLATES_MAX, RouteFinder

SPARE_ROUTES = 100
"""The number of rows that are reserved for routes that appear during the run; the last one is for OTHERS."""

HISTORY_ROUTES_MAX = 400
OTHERS = "(later routes)"


def unused_name(row: int) -> str:
    """Return the name of a row that has no route yet."""
    return f"(unused {row})"


class RouteBook(RouteFinder):
    """Assigns routes to rows. `open` fills `names` and `actions` up to `size` rows.

    Routes that the scenario's rules list have rows from the start, so that the rules apply to them. A pattern with
    `*` has a single row for all new routes that it matches.
    """

    def __init__(self, methods: list[str], rules: RouteRules, named: Sequence[str] = ()) -> None:
        super().__init__(methods, rules)
        self.names: list[str] = []
        self.actions: list[str] = []
        self._row_of_template: list[int] = []
        self._row_of_name: dict[str, int] = {}
        self._patterns = [name for name in dict.fromkeys(named) if "*" in name]
        self._exact = [name for name in dict.fromkeys(named) if "*" not in name and " " in name]
        self.size = 0
        self.renames: deque[tuple[int, str, str]] = deque()
        """Rows that got a name during the run: (row, name, action). The control plane takes them from here."""

    def learn_history(
        self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], method: npt.NDArray[np.uint8]
    ) -> None:
        """Learn the routes of requests from before the run."""
        self._number_all(data, offsets, method)

    def open(self) -> None:
        """Name the rows. It is called once, when the lines from before the run have been read."""
        self._fold_to(TEMPLATES_MAX)
        counts = list(zip(self._labels_now(), self._rows[: len(self._table)].tolist(), strict=True))
        known = [label for label, _ in sorted(counts, key=lambda pair: -pair[1])][:HISTORY_ROUTES_MAX]
        own = [
            f"{name.decode()} {path.decode()}"
            for method, path in self._rules.split()
            for name in ([method] if method else [])
        ]
        for name in dict.fromkeys([*self._patterns, *self._exact, *own, *known]):
            self._enter(name, self._rules.action_of(name))
        self.size = len(self.names) + SPARE_ROUTES
        for row in range(len(self.names), self.size - 1):
            self.names.append(unused_name(row))
            self.actions.append("")
        self._free = self.size - SPARE_ROUTES
        self.names.append(OTHERS)
        self.actions.append("")
        self._map_templates()

    def _enter(self, name: str, action: str) -> int:
        row = self._row_of_name[name] = len(self.names)
        self.names.append(name)
        self.actions.append(action)
        return row

    def number(
        self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], method: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.uint32]:
        """Return the row of each request's route."""
        ids = self._number_all(data, offsets, method)
        if len(self._table) > len(self._row_of_template):
            self._map_templates()
        return np.array(self._row_of_template, np.uint32)[ids]

    def _number_all(
        self, data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], method: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.uint32]:
        """Return the template ids of requests.

        If there are too many templates, or if unused rows run short, rare children of one parent are first merged
        into a slug.
        """
        crowded = len(self._table) + len(method) > TEMPLATES_MAX
        if crowded or (
            self.size and self._free > self.size - SPARE_ROUTES // 2 and len(self._table) >= SLUG_CHILDREN
        ):
            before = len(self._table)
            self._fold_to(TEMPLATES_MAX // 2) if crowded else self._fold(SLUG_CHILDREN)
            if self.size and len(self._table) != before:
                self._row_of_template = []
                self._map_templates()
        _, ids = self._number(offsets, data, method, 0, 1 << 62)
        self._tally(ids, np.ones(len(ids), np.int64))
        self._maps.clear()
        return ids

    def _labels_now(self) -> list[str]:
        return [template.decode("utf-8", "backslashreplace") for template in self._table.strings()]

    def _map_templates(self) -> None:
        """Assign rows to the templates that have none."""
        for label in self._labels_now()[len(self._row_of_template) :]:
            self._row_of_template.append(self._row_of(label))

    def _row_of(self, label: str) -> int:
        if (row := self._row_of_name.get(label)) is not None:
            return row
        pattern = next((each for each in self._patterns if names_route(each, label)), None)
        if pattern is not None:
            row = self._row_of_name[pattern]
        elif self._free < self.size - 1:
            row, self._free = self._free, self._free + 1
            self.names[row], self.actions[row] = label, self._rules.action_of(label)
            self.renames.append((row, label, self.actions[row]))
        else:
            row = self.size - 1
        self._row_of_name[label] = row
        return row
