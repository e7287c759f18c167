"""The trace: recorded requests and their times, as columns on disk (docs/trace-format.md)."""

from .batch import Batch, with_requests
from .blocks import ReusedBuffers
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
from .requests import Headers, Request, Requests
from .responses import BodyDigest, RecordedResponse, Responses, body_digest, media_type
from .route_rules import RouteRules, read_route_rules
from .writer import TraceWriter

__all__ = [
    "FORMAT_VERSION",
    "Batch",
    "BodyDigest",
    "DerivedTraceWriter",
    "Headers",
    "Jitter",
    "LeftOut",
    "Manifest",
    "RecordedResponse",
    "RejectedExample",
    "Request",
    "Requests",
    "Responses",
    "ReusedBuffers",
    "Route",
    "RouteRules",
    "Segment",
    "Source",
    "Trace",
    "TraceWriter",
    "body_digest",
    "half_trace",
    "is_trace",
    "media_type",
    "read_route_rules",
    "with_requests",
]
