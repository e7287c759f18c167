"""Limits the size of the request bodies that are recorded (`--body-limit`)."""

from __future__ import annotations

from dataclasses import dataclass

from replay.naming import names_route

from .framing import RequestHead

BODY_BYTES_MAX = 1 << 20
LIMIT_BYTES_MAX = 256 << 20
"""Highest limit: a block of a journal has several bodies, and at most 1 GiB."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The maximum size of a recorded request body, in bytes: by route (the first matching pattern), or `bytes_max`.

    A larger body is not recorded at all.
    """

    bytes_max: int = BODY_BYTES_MAX
    by_route: tuple[tuple[str, int], ...] = ()

    def of(self, head: RequestHead) -> int:
        """Return the limit for one request, in bytes."""
        if self.by_route:
            path = head.target.partition(b"?")[0]
            route = b"%b %b" % (head.method, path)
            for pattern, limit in self.by_route:
                if names_route(pattern, route.decode("latin-1")):
                    return limit
        return self.bytes_max
