"""Sinks that export a run's figures to monitoring tools: Prometheus scrapes them, OTLP pushes them.

`totals` keeps the counts until now, under the names of `replay.ledger.metrics`; each exporter converts them to
its own format. Both import their libraries when they are used (the extra `metrics`).
"""
