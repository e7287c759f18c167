"""Sinks that export a run's figures to the tools that teams already watch: Prometheus scrapes them, OTLP pushes them.

`totals` keeps what was counted so far, under the names of `replay.ledger.metrics`; each exporter turns it into its own
format. Both import their libraries when they are used (the extra `metrics`).
"""
