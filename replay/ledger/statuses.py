"""Compares the statuses of responses with the recorded ones: how many are worse, and whether that fails the run.

`replay_native.ledger.statuses` defines which response is worse. If the recording has no status for a request, a
single 4xx means little: such requests count only if more than half of them got a 4xx.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from replay.units import format_share

from .validity import Reason, Validity, Verdict

if TYPE_CHECKING:
    from replay_native.ledger.lane_metrics import LaneMetrics

STATUS_DIFFERS = "STATUS_DIFFERS"
SUSPECT_SHARE = 0.05
"""If more than this share of all requests got a worse status, the run is SUSPECT."""

ROUTE_SHARE, ROUTE_LEAST = 0.5, 0.01
"""A run is also SUSPECT if more than this share of a route got a worse status.

The route must have at least ROUTE_LEAST of all requests.
"""

FAILED_SHARE = 0.5
"""If more than this share of all requests got a worse status, the run has failed."""

ROUTES_NAMED = 3
ACCEPT = "--slo 'statuses differ<100%'"


class StatusCount(NamedTuple):
    """The statuses of all measured requests, or of those of one route.

    `compared` counts complete responses to requests with a recorded status, and `worse` those among them with a worse
    status. `unknown` counts complete responses to requests without a recorded status, and `unknown_4xx` those among
    them that are a 4xx.
    """

    requests: int = 0
    compared: int = 0
    worse: int = 0
    unknown: int = 0
    unknown_4xx: int = 0

    @property
    def is_known(self) -> bool:
        """Whether there was any response to judge."""
        return self.compared + self.unknown > 0

    @property
    def differing(self) -> int:
        """Number of requests with a worse status: `worse`, and `unknown_4xx` if that is more than half of `unknown`."""
        return self.worse + (self.unknown_4xx if 2 * self.unknown_4xx > self.unknown else 0)

    @property
    def share(self) -> float:
        """Share of `differing` in all requests."""
        return self.differing / self.requests if self.requests else 0.0


class StatusFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Responses compared with the recording, without the warm-up; `StatusCount` explains the counts.

    `share` is the share of requests with a worse status (`differing`). `failed` is set if it exceeds 50% and no
    objective limits it instead.
    """

    requests: int
    compared: int
    worse: int
    unknown: int
    unknown_4xx: int
    share: float
    failed: bool = False


def count_statuses(all_metrics: Sequence[LaneMetrics], names: Sequence[str]) -> dict[str, StatusCount]:
    """Return the statuses of each route with requests, summed over lanes.

    `names` are the routes in the order of the rows of the lanes' memory.
    """
    counts = sum(
        (np.array(metrics.status_counts) for metrics in all_metrics),
        np.zeros_like(all_metrics[0].status_counts),
    )
    requests = sum(
        (metrics.route_counts.sum(axis=1) for metrics in all_metrics), np.zeros(len(counts), np.int64)
    )
    rows = zip(names, requests.tolist(), counts.tolist(), strict=True)
    return {name: StatusCount(total, *row) for name, total, row in rows if total}


def total_of(counts: Iterable[StatusCount]) -> StatusCount:
    """Return the sum of several counts."""
    return StatusCount(*(sum(column) for column in zip(*counts, strict=True)))


def figures_of(by_route: Mapping[str, StatusCount], *, replaced: bool) -> StatusFigures | None:
    """Return the figures of a run; None if there was no response.

    `replaced` means that an objective replaces the rule, so that the run does not fail by FAILED_SHARE.
    """
    total = total_of(by_route.values())
    if not total.is_known:
        return None
    failed = total.share > FAILED_SHARE and not replaced
    return StatusFigures(**total._asdict(), share=round(total.share, 6), failed=failed)


def reason_of(
    by_route: Mapping[str, StatusCount], recorded: Mapping[str, int], now: Mapping[str, int]
) -> Reason | None:
    """Return a finding if more responses are worse than the rule allows.

    `recorded` and `now` count requests by status class.
    """
    total = total_of(by_route.values())
    routes = {
        name: count
        for name, count in by_route.items()
        if count.share > ROUTE_SHARE and count.requests >= ROUTE_LEAST * total.requests
    }
    if total.share <= SUSPECT_SHARE and not routes:
        return None
    differing, of = total.differing, total.requests
    message = f"{format_share(total.share)} of the requests ({differing:,} of {of:,}) got a worse status than recorded"
    if not recorded:
        message = (
            f"{format_share(total.unknown_4xx / of)} of the requests ({total.unknown_4xx:,} of {of:,}) got a 4xx;"
            " the recording has no statuses to compare with"
        )
    else:
        message += f": recorded {_classes(recorded)}; now {_classes(now)}"
    worst = sorted(routes.items(), key=lambda item: -item[1].differing)
    if worst:
        named = [f"{name} ({format_share(count.share)})" for name, count in worst[:ROUTES_NAMED]]
        more = f" and {len(worst) - ROUTES_NAMED} more" if len(worst) > ROUTES_NAMED else ""
        message += f"; more than half on {', '.join(named)}{more}"
    return Reason(
        code=STATUS_DIFFERS,
        verdict="SUSPECT",
        message=message,
        advice="latencies of refusals mean little: check the target, its data and credentials (docs/sessions.md),"
        f" or accept these statuses: {ACCEPT}",
    )


def with_first_reason(validity: Validity, reason: Reason) -> Validity:
    """Return the verdict with one more reason, which is listed before all others."""
    worse: Verdict = reason.verdict if validity.verdict == "VALID" else validity.verdict
    return Validity(verdict=worse, reasons=[reason, *validity.reasons])


def _classes(counts: Mapping[str, int]) -> str:
    """Format status classes, the most frequent first: `2xx 98%, 3xx 2%`."""
    total = sum(counts.values())
    found = sorted(((name, count) for name, count in counts.items() if count), key=lambda item: -item[1])
    return ", ".join(f"{name} {format_share(count / total)}" for name, count in found) or "none"
