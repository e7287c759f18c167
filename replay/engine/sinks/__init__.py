"""Sinks, which receive each second of a run while it is in progress; docs/sinks.md is the reference.

The recorder computes what happened in each second. A sink writes it to a place: the run folder, the screen, a CSV
file, a metrics server. A sink has four methods (`Sink`). `--sink NAME=VALUE` makes one by name (`make_sink`), and
`replay.run(sinks=[...])` accepts any object that has the methods.

The run folder and the circuit breaker belong to the run, which ends if they fail. Every other sink runs in its
own thread (`SinkThreads`), so that a sink that raises, is slow or hangs neither fails a run nor delays it.
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
