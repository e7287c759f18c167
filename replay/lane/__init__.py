"""The shell of a lane: its contract, its feed, the addresses it connects to, and the native engine."""

KERNEL_MODULES = (
    "ground.shared",
    "ledger.hdr",
    "ledger.hdr_decode",
    "http1.parser",
    "keeping.responses",
    "keeping.ring",
    "ledger.record",
    "ledger.gaps",
    "lane.loop",
)
"""Kernel modules of a native lane. `native` imports them, which takes a while: a plan does without."""
