"""Everything around a lane: its contract, its feed, its addresses, and the native engine."""

KERNEL_MODULES = (
    "ground.shared",
    "templates.trace_context",
    "ledger.hdr",
    "http1.parser",
    "keeping.responses",
    "keeping.ring",
    "ledger.record",
    "ledger.gaps",
    "lane.loop",
)
"""Kernel modules of a native lane. `native` imports them, which is slow, so a plan does without."""
