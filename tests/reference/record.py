"""The obvious twin of `replay_native.record`: it keeps every request, and counts them only when asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from replay_native.ledger.lane_metrics import OUTCOMES, SAMPLES_KEPT

HIGHEST_NS = 3_600_000_000_000
WARM_UP = 4


def hdr_index(value: int, half: int) -> int:
    """The counter of a value, found as HdrHistogram's papers say: halve until it fits the sub-buckets."""
    value, bucket = min(max(value, 0), HIGHEST_NS), 0
    while value >> bucket >= 2 << half:
        bucket += 1
    return ((bucket + 1) << half) + (value >> bucket) - (1 << half)


@dataclass(frozen=True)
class Ended:
    """One request from its due time to its end. Stamps that never came are -1."""

    outcome: str
    route: int
    seq: int
    due: int
    taken: int
    order: int = 0
    sent: int = -1
    first_byte: int = -1
    done: int = -1
    fresh: bool = False
    warm_up: bool = False
    reason: str = ""
    own: int = 0
    unread: int = 0

    @property
    def late(self) -> int:
        """How long its answer lay unread: not longer than since it was sent."""
        return min(self.unread, self.done - self.sent) if self.sent >= 0 else 0

    def net(self, max_wait: int) -> int:
        """Its response without the generator's own part."""
        whole = max_wait if self.outcome == "unsent" else self.done - self.due - self.late
        return max(whole - self.own, 0)

    def felt(self, closed_loop: bool, max_wait: int) -> int:
        if self.outcome == "unsent":
            return max_wait
        if closed_loop:
            return self.done - (self.sent if self.sent >= 0 else self.taken)
        return self.done - self.due


@dataclass
class Book:
    """All requests of a lane."""

    slots: int
    closed_loop: bool
    max_wait: int
    ended: list[Ended] = field(default_factory=list)

    @property
    def measured(self) -> list[Ended]:
        return [one for one in self.ended if not one.warm_up]

    def counters(self) -> dict[str, int]:
        by_outcome = Counter(one.outcome for one in self.ended)
        reasons = Counter(one.reason for one in self.ended if one.outcome == "unsent")
        ok = sum(by_outcome[name] for name in OUTCOMES[:4])
        unsent, timeout = by_outcome["unsent"], by_outcome["timeout"]
        counted = {
            "planned": len(self.ended),
            "sent": len(self.ended) - unsent,
            "ok": ok,
            "timeout": timeout,
            "error": len(self.ended) - ok - timeout - unsent,
            "in_flight": 0,
            "unsent_own": sum(
                one.reason in ("max_wait", "limit") and 4 * one.own > self.max_wait for one in self.ended
            ),
            "reads_late": sum(one.late > 0 for one in self.ended),
            "reads_late_ns": sum(one.late for one in self.ended),
            "warm_up": len(self.ended) - len(self.measured),
        }
        counted |= {f"outcome_{name}": by_outcome[name] for name in OUTCOMES}
        return counted | {
            f"unsent_{name}": reasons[name] for name in ("max_wait", "interrupted", "limit", "capture")
        }

    def totals(self) -> dict[str, list[int]]:
        """Values by histogram."""
        rows = self.measured
        sent = [one for one in rows if one.sent >= 0]
        open_loop = not self.closed_loop
        ended_open = [one for one in rows if open_loop or one.outcome == "unsent"]
        return {
            "response.all": [one.felt(self.closed_loop, self.max_wait) for one in ended_open],
            "response.ok": [one.done - one.due for one in ended_open if one.outcome in OUTCOMES[:4]],
            "lateness.all": [one.taken - one.due for one in rows if open_loop],
            "wait.all": [one.sent - one.taken for one in sent if open_loop],
            "wait.order": [one.order for one in sent if open_loop and one.order],
            "wait.connect": [one.sent - one.taken - one.order for one in sent if open_loop and one.fresh],
            "wait.queue": [one.sent - one.taken - one.order for one in sent if open_loop and not one.fresh],
            "service.all": [one.done - one.sent for one in sent],
            "response.net": [one.net(self.max_wait) for one in ended_open],
            "response.arrived": [one.felt(self.closed_loop, self.max_wait) - one.late for one in ended_open],
            "service.net": [one.done - one.sent - one.late for one in sent],
            "first_byte.all": [one.first_byte - one.sent for one in rows if one.first_byte >= 0],
        }

    def by_route(self) -> dict[tuple[int, str], tuple[list[int], list[int]]]:
        """Responses and services by route and outcome, as if the arena had no end."""
        found: dict[tuple[int, str], tuple[list[int], list[int]]] = {}
        for one in self.measured:
            responses, services = found.setdefault((one.route, one.outcome), ([], []))
            if not self.closed_loop or one.outcome == "unsent":
                responses.append(one.felt(self.closed_loop, self.max_wait))
            if one.sent >= 0:
                services.append(one.done - one.sent)
        return {pair: values for pair, values in found.items() if any(values)}

    def route_counts(self) -> dict[tuple[int, str], int]:
        """Requests by route and outcome."""
        return dict(Counter((one.route, one.outcome) for one in self.measured))

    def merged(self) -> int:
        """Pairs of route and outcome that came after the arena was full."""
        return max(len(self.by_route()) - (self.slots - len(OUTCOMES)), 0)

    def failed(self, route: int) -> list[int]:
        """Sequences of the first failed ones: anything but a 2xx, 3xx or 4xx."""
        bad = [one.seq for one in self.measured if one.route == route and one.outcome not in OUTCOMES[:3]]
        return bad[:SAMPLES_KEPT]

    def slowest(self, route: int) -> list[int]:
        """What the slowest ones were felt as, ascending."""
        felt = [one.felt(self.closed_loop, self.max_wait) for one in self.measured if one.route == route]
        return sorted(felt)[-SAMPLES_KEPT:]
