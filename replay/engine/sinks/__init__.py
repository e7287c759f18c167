"""Sinks: where the seconds of a run go while it goes. docs/sinks.md is the reference.

The recorder computes what happened in each second; a sink writes it somewhere: the run folder, the screen, a CSV file, a
metrics server. A sink has four methods (`Sink`); `--sink NAME=VALUE` makes one by name (`make_sink`), and
`replay.run(sinks=[...])` takes any object that has them.

The run folder and the circuit breaker belong to the run: it ends where they fail. Every other sink runs in a thread of
its own (`SinkThreads`), so that one that raises, is slow or hangs neither fails a run nor delays it.
"""

from replay.results.deltas import Deltas, HistogramDelta
from replay.results.document import RunDocument, Started
from replay.results.timeline import Second

from .interface import Sink
from .registry import make_sink, make_sinks

__all__ = [
    "Deltas",
    "HistogramDelta",
    "RunDocument",
    "Second",
    "Sink",
    "Started",
    "make_sink",
    "make_sinks",
]
