"""Answers a native lane that has its name looked up for each connection: reads its asks, writes its grants."""

from __future__ import annotations

import os
from collections.abc import Callable

import trio

from replay_native.feed.resolve import ASKED, GRANTED
from replay_native.ground import shared

from .contract import LaneSpec


async def answer_asks(spec: LaneSpec, wake: Callable[[], None]) -> None:
    """Answer each ask of a lane once, many at once and in any order, until cancelled."""
    assert spec.ask is not None
    asks, find_row, answered = spec.asks, spec.ask, 0

    async def one(token: int) -> None:
        row = await find_row()
        granted = int(asks.words[GRANTED])
        asks.grants[granted % len(asks.grants)] = token, row
        shared.write_word(asks.words, GRANTED, granted + 1)
        wake()

    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(spec.ask_fd)
            os.read(spec.ask_fd, 8)
            asked = shared.read_word(asks.words, ASKED)
            while answered < asked:
                nursery.start_soon(one, int(asks.tokens[answered % len(asks.tokens)]))
                answered += 1
