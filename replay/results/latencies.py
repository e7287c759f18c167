"""Latencies of run.json: the figures of a histogram, and the histograms over all routes that the catalog lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from replay.ledger.catalog import HISTOGRAMS, Histogram


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one histogram.

    The figures listed in `at_least` are lower bounds, because they fall among requests that were never sent, among
    records that were not consumed by the end, or on one hour, the highest value of a histogram. Percentiles follow
    Java's rule (`replay.ledger.percentiles`).
    """

    count: int
    min_ns: int
    mean_ns: float
    stdev_ns: float
    p50_ns: int
    p90_ns: int
    p95_ns: int
    p99_ns: int
    p99_9_ns: int
    p99_99_ns: int
    max_ns: int
    at_least: list[str] = []


_MEANING = """Latencies over all routes (docs/lane-contract.md defines them).

    A closed loop has only `service`, `first_byte` and handshakes. Handshakes are present if TLS made any, and
    `wait_order` if the requests of a client were kept in order. With a Kafka consumer, `end_to_end` ends when a record
    was consumed, and `answer` when the record with a pipeline's answer was consumed. Both begin at the due time.
    """


def is_listed(histogram: Histogram) -> bool:
    """Return whether `latency` in run.json contains this histogram.

    Latencies without the generator's delays are in `delays` instead.
    """
    return not histogram.net


def is_required(histogram: Histogram) -> bool:
    """Return whether every run has this histogram."""
    return histogram.closed_loop and not histogram.only


if TYPE_CHECKING:

    class Latencies(msgspec.Struct, frozen=True, kw_only=True):
        """Latencies over all routes.

        The fields follow from the catalog, so a type checker knows their type but not their names.
        """

        service: Latency
        first_byte: Latency

        def __init__(self, **figures: Latency) -> None: ...

        def __getattr__(self, name: str) -> Latency | UnsetType: ...

else:
    Latencies = msgspec.defstruct(
        "Latencies",
        [
            (row.field, Latency) if is_required(row) else (row.field, Latency | UnsetType, UNSET)
            for row in HISTOGRAMS
            if is_listed(row)
        ],
        frozen=True,
        kw_only=True,
        module=__name__,
        namespace={"__doc__": _MEANING},
    )
