"""Answers the resolve requests of a native lane that looks its name up for each connection."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from replay_native.feed.resolve import REPLIED, REQUESTED
from replay_native.ground import shared

from .contract import LaneSpec


async def answer_resolve_requests(spec: LaneSpec, wake: Callable[[], None]) -> None:
    """Answer each resolve request of a lane once, concurrently and in any order, until cancelled."""
    assert spec.ask is not None
    rings, find_row, begun = spec.resolve_rings, spec.ask, 0

    async def one(token: int) -> None:
        row = await find_row()
        replied = int(rings.words[REPLIED])
        rings.replies[replied % len(rings.replies)] = token, row
        shared.write_word(rings.words, REPLIED, replied + 1)
        wake()

    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(spec.resolve_fd)
            os.read(spec.resolve_fd, 8)
            requested = shared.read_word(rings.words, REQUESTED)
            while begun < requested:
                nursery.start_soon(one, int(rings.requests[begun % len(rings.requests)]))
                begun += 1
