"""The protocols of targets, one package each, found by the scheme of the target's URL.

    protocol.py   the interface
    registry.py   finds protocols
    trio_host.py  the host of protocols that are written in plain Trio
    http1/        HTTP/1.1, plain and over TLS
    kafka/        records to topics

docs/adding.md shows how to write a protocol with the modules of this package.
"""

from .protocol import Protocol, TargetPlan

__all__ = ["Protocol", "TargetPlan"]
