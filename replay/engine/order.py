"""The instructions of another process for a run: its name, its share of the lanes, its start and its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from replay.lane.contract import LaneRange

from .run_state import RunState
from .watch import EndRequests


@dataclass
class Order:
    """A share of a run that goes over several processes (docs/cluster.md).

    `instant` is called when everything is ready: targets are looked up, lanes have their memory, the run folder exists.
    It gets the run, and returns when the first request is due, by CLOCK_MONOTONIC. Cancelled there, nothing is sent, and the
    folder is removed. `requests` end the run.

    Nothing is fed to the lanes that is due after `until_ns` (CLOCK_MONOTONIC). It moves on as long as the coordinator is
    heard: a process that was stopped for a while does not send what is already accounted for as not sent.
    """

    run_id: str
    share: LaneRange
    instant: Callable[[RunState], Awaitable[int]]
    requests: EndRequests = field(default_factory=EndRequests)
    until_ns: int = 1 << 62
