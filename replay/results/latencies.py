"""Latencies of run.json: the figures of a histogram, and the histograms over all routes as the catalog lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from replay.ledger.catalog import HISTOGRAMS, Histogram


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one histogram. Those listed in `at_least` are lower bounds: they fall among requests that were never
    sent, or on an hour, the highest value of a histogram.

    Percentiles follow Java's rule (`replay.ledger.percentiles`).
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


_MEANING = """Latencies over all routes (docs/lane-contract.md says what each is). A closed loop has only `service` and
    `first_byte`. Handshakes are there where TLS made any, `wait_order` where clients were in order, and of Kafka
    `end_to_end` (due to consumed) and `answer` (due to the answer of a pipeline consumed) where they were consumed.
    """


def is_listed(histogram: Histogram) -> bool:
    """Whether `latency` of run.json has this histogram. Latencies without the generator's delays are in `delays`."""
    return not histogram.net


def is_required(histogram: Histogram) -> bool:
    """Whether every run has it."""
    return histogram.closed_loop and not histogram.only


if TYPE_CHECKING:

    class Latencies(msgspec.Struct, frozen=True, kw_only=True):
        """Its fields follow from the catalog, so a type checker knows their type but not their names."""

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
