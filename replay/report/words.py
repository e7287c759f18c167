"""Words that every report has for the same thing: the terminal and the pages use them alike."""

from __future__ import annotations

FIGURES = {"p50_ns": "p50", "p90_ns": "p90", "p99_ns": "p99", "p99_9_ns": "p99.9", "max_ns": "max"}
"""The figures of a latency that reports show."""

LATENCIES = (
    ("response", "response", "what a user would have felt"),
    ("lateness", "generator lag", "how late the generator itself was"),
    ("wait", "wait", "for a connection"),
    ("wait_order", "wait.order", "part of wait: the client's last request"),
    ("service", "service", "what the target took"),
    ("handshake_full", "handshake", "a full TLS handshake, part of wait"),
    ("handshake_resumed", "resumed", "a TLS handshake that resumed a session"),
    ("end_to_end", "end to end", "from due to consumed"),
    ("answer", "answer", "from due to its answer consumed"),
)
"""Latencies of a run document: field, name on screen, meaning."""
