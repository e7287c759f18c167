"""A row of `timeline.jsonl`: one second of a run."""

from __future__ import annotations

import msgspec

from replay_native.ledger import hdr


class Second(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row of the timeline: what happened from `t_s` (since the start) for `length_s`. Requests are
    counted in the second of the event itself: planned when due, ok when answered. Percentiles are of what
    ended in it; null where nothing did. One of an hour or more is a lower bound: histograms tell no more apart.
    `outcomes_measured` are the outcomes without the warm-up's, where those are others. Without the warm-up's,
    `status_worse` counts responses that have a worse status than recorded, `unknown_4xx` those that have a 4xx where the
    recording does not say. `unsent_of_target` counts those of `unsent` that the target kept from being sent. `lag` is the
    Kafka consumer's, in records, by partition.
    """

    t_s: float
    length_s: float
    wall_ns: int
    planned: int
    sent: int
    ok: int
    error: int
    timeout: int
    unsent: int
    in_flight: int
    waiting: int
    open: int
    bytes_sent: int
    bytes_received: int
    handshakes_full: int = 0
    handshakes_resumed: int = 0
    handshakes_failed: int = 0
    unsent_of_target: int = 0
    response_p50_ns: int | None = None
    response_p99_ns: int | None = None
    response_max_ns: int | None = None
    lateness_p50_ns: int | None = None
    lateness_p99_ns: int | None = None
    wait_p99_ns: int | None = None
    service_p50_ns: int | None = None
    service_p99_ns: int | None = None
    end_to_end_p50_ns: int | None = None
    end_to_end_p99_ns: int | None = None
    answer_p50_ns: int | None = None
    answer_p99_ns: int | None = None
    outcomes: dict[str, int] = {}
    outcomes_measured: dict[str, int] | None = None
    status_worse: int = 0
    unknown_4xx: int = 0
    lag: dict[str, int] = {}

    def figure_ns(self, name: str) -> tuple[int, bool] | None:
        """The percentile of this name, and whether it is a lower bound; None where nothing ended."""
        value: int | None = getattr(self, name)
        return None if value is None else (min(value, hdr.HIGHEST_NS), value >= hdr.HIGHEST_NS)

    @property
    def measured(self) -> dict[str, int]:
        """Outcomes without those of the warm-up."""
        return self.outcomes if self.outcomes_measured is None else self.outcomes_measured


class LiveSecond(Second, frozen=True, kw_only=True, omit_defaults=True):
    """A row as observers get it, with the slowest routes of the last while: the p99 of each in its last interval (10 s or
    more), the slowest first. It is not in the file; empty until the first routes' intervals have ended.
    """

    slowest: dict[str, int] = {}
