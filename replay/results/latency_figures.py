"""The latencies of a run over all routes, for run.json."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from replay.ledger.catalog import HISTOGRAMS, WITH_CONSUMER

from .document import KafkaFigures, Latencies, Latency
from .latencies import is_listed
from .measured import Measured

NOTHING = msgspec.convert({name: 0 for name in Latency.__struct_fields__ if name != "at_least"}, Latency)
"""The figures of an empty histogram."""


def latencies_of(measured: Measured, closed_loop: bool, kafka: Sequence[KafkaFigures | None]) -> Latencies:
    """Return the latencies over all routes that the catalog lists for run.json.

    Histograms that not every run has are left out if they are empty.
    """
    found = {}
    for row in HISTOGRAMS:
        if not is_listed(row) or (closed_loop and not row.closed_loop):
            continue
        latency = measured.latency(row.name)
        if latency is not None and row.only == WITH_CONSUMER:
            latency = _bounded(latency, _missing_from_ns(row.name, kafka))
        if latency is not None or not row.only:
            found[row.field] = latency or NOTHING
    return Latencies(**found)


def _missing_from_ns(name: str, kafka: Sequence[KafkaFigures | None]) -> int | None:
    """Return the latency from which a consumer's histogram contains records that were missing at the end.

    Return None if none were missing.
    """
    consumed = [each.consumed[name] for each in kafka if each is not None and name in each.consumed]
    return min((each.at_least_ns for each in consumed if each.at_least_ns is not None), default=None)


def _bounded(latency: Latency, from_ns: int | None) -> Latency:
    """Mark the values of a latency from `from_ns` on as lower bounds, because records were missing at the end."""
    if from_ns is None:
        return latency
    names = [name for name in latency.__struct_fields__ if name.startswith("p") or name == "max_ns"]
    bounds = [name for name in names if getattr(latency, name) >= from_ns or name in latency.at_least]
    return msgspec.structs.replace(latency, at_least=["mean_ns", *bounds])
