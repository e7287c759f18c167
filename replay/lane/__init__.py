"""A lane's environment in the control plane: its contract, its feed, its addresses, and the native engine."""

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
"""Kernel modules of a native lane.

They are listed here because a plan needs their names only; importing them (through `native`) is slow.
"""
