"""Runs two native lanes on one thread: the requests of two runs, each with its twin (`replay_native.lane.pair`)."""

from __future__ import annotations

import trio

from replay_native.lane import pair as kernels
from replay_native.lane.connections import Lane

from .contract import LaneSpec
from .native import make_lane, secured


async def run_paired(one: LaneSpec, two: LaneSpec) -> None:
    """Run two native lanes to their ends, on one thread.

    They cannot be cancelled; to stop them, write STOP to their control blocks. The caller finds out with
    `native.check_ended` whether they could start.
    """
    lanes = make_lane(one), make_lane(two)
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(_run, one, two, *lanes)


def _run(one: LaneSpec, two: LaneSpec, first: Lane, second: Lane) -> None:
    with secured(first, one.tls) as ready, secured(second, two.tls) as other:
        kernels.run_pair(ready, other)
