"""The instructions of another process for a run: the run id, the share of the lanes, the start and the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from replay.lane.contract import LaneRange

from .run_state import RunState
from .watch import EndRequests


@dataclass
class Order:
    """A share of a run over several processes (docs/cluster.md).

    `instant` is called when everything is ready: targets are looked up, lanes have their memory, the run folder
    exists. It receives the state of the run, and returns when the first request is due, by CLOCK_MONOTONIC. If it
    is cancelled, nothing is sent, and the folder is removed. `requests` receives the requests to end the run.

    Lanes receive no requests that are due after `until_ns` (CLOCK_MONOTONIC). The agent moves this limit with
    every message from the coordinator, so that a process that was stopped for a while does not send what is
    already counted as unsent.
    """

    run_id: str
    share: LaneRange
    instant: Callable[[RunState], Awaitable[int]]
    requests: EndRequests = field(default_factory=EndRequests)
    until_ns: int = 1 << 62
