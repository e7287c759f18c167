"""How many requests of each business action ended and failed, from the lanes' counters.

A request counts as failed as in the accounts: a 5xx, no complete response, or never sent. Failures for which the
target is not to blame are left out: requests that the generator failed to send, and requests that were unsent for a
reason other than the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from replay.ledger.catalog import FAILED
from replay_native.ledger.catalog import OUTCOMES

from .measured import counts_by_route, not_of_target
from .started import RouteStart

if TYPE_CHECKING:
    from replay_native.ledger.lane_metrics import LaneMetrics

_FAILED = [OUTCOMES.index(name) for name in FAILED]

Counts = Mapping[str, tuple[int, int]]
"""For each action: the number of requests, and how many of them failed."""


class ActionCounts:
    """Counts the requests of each action between two calls of `take`.

    `take` looks up the actions on each call, because routes of a followed source get theirs during the run.
    """

    def __init__(self, all_metrics: Sequence[LaneMetrics], routes: Sequence[RouteStart]) -> None:
        self._all_metrics, self._routes = all_metrics, routes
        self._before = np.zeros((len(routes) + 1, 2), np.int64)

    def take(self) -> dict[str, tuple[int, int]]:
        """Return, by action, how many requests ended since the last call, and how many of them failed.

        Actions without such requests are left out.
        """
        if not any(route.action for route in self._routes):
            return {}
        counts = counts_by_route(self._all_metrics)
        failed = counts[:, _FAILED].sum(axis=1) - not_of_target(self._all_metrics)
        now = np.stack([counts.sum(axis=1), failed], axis=1)
        came, self._before = now - self._before, now
        rows: dict[str, list[int]] = {}
        for row, route in enumerate(self._routes):
            if route.action:
                rows.setdefault(route.action, []).append(row)
        sums = {action: came[of].sum(axis=0).tolist() for action, of in rows.items()}
        return {action: (ended, max(bad, 0)) for action, (ended, bad) in sums.items() if ended}


def added(parts: Iterable[Counts]) -> dict[str, tuple[int, int]]:
    """Add up the counts of several parts of a run, by action."""
    sums: dict[str, tuple[int, int]] = {}
    for part in parts:
        for action, (requests, failed) in part.items():
            before = sums.get(action, (0, 0))
            sums[action] = before[0] + requests, before[1] + failed
    return sums
