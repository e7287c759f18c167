"""The trace: what was requested and when, as columns on disk (docs/trace-format.md)."""

from .batch import Batch, with_requests
from .derived import DerivedTraceWriter
from .manifest import (
    FORMAT_VERSION,
    Jitter,
    LeftOut,
    Manifest,
    RejectedExample,
    Route,
    Segment,
    Source,
)
from .reader import (
    Trace,
    half_trace,
    is_trace,
)
from .requests import Request, Requests
from .route_rules import RouteRules, read_route_rules
from .writer import TraceWriter

__all__ = [
    "FORMAT_VERSION",
    "Batch",
    "DerivedTraceWriter",
    "Jitter",
    "LeftOut",
    "Manifest",
    "RejectedExample",
    "Request",
    "Requests",
    "Route",
    "RouteRules",
    "Segment",
    "Source",
    "Trace",
    "TraceWriter",
    "half_trace",
    "is_trace",
    "read_route_rules",
    "with_requests",
]
