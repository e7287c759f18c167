"""What a run can be sent to: one package for each protocol, found by the scheme of the target's URL.

    protocol.py   the interface
    registry.py   finds protocols
    trio_host.py  the host of protocols that are written in plain Trio
    http1/        HTTP/1.1, plain and by TLS
    kafka/        records onto topics

To write one of your own see docs/adding.md; everything that it needs is imported from here.
"""

from .protocol import Protocol, TargetPlan

__all__ = ["Protocol", "TargetPlan"]
