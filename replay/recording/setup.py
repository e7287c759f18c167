"""The settings that a recording passes to the writer's process."""

from __future__ import annotations

import msgspec

from .body_limits import BODY_BYTES_MAX


class Setup(msgspec.Struct):
    """The settings of the writer.

    `ring` is the descriptor of a native receiver's ring, or -1. `body_limits` and `body_limit` apply to the
    requests in that ring.
    """

    journal: str
    source: str
    started_ns: int
    keep_secrets: bool = False
    keep_responses: bool = False
    headers: str = "all"
    scrub: list[str] = []
    scrub_key: bytes = b""
    ring: int = -1
    body_limit: int = BODY_BYTES_MAX
    body_limits: list[tuple[str, int]] = []
