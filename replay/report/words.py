"""Terms that the terminal and the pages share."""

from __future__ import annotations

from replay.ledger.catalog import HISTOGRAMS

FIGURES = {"p50_ns": "p50", "p90_ns": "p90", "p99_ns": "p99", "p99_9_ns": "p99.9", "max_ns": "max"}
"""The figures of a latency that reports show."""

LATENCIES = tuple((row.field, row.title, row.words) for row in HISTOGRAMS if row.title)
"""The latencies of a run document: field, name in reports, meaning."""
