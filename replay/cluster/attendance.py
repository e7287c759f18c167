"""The search for missing agents: those that have not connected yet, and those whose processes have ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from replay.units import SECOND_NS

from .coordinator_state import CoordinatorState, Phase
from .protocol import Failed, Output
from .transports import Transport

MISSING_NS = 3 * SECOND_NS
"""An agent that has not connected after this time is reported."""

LOG_CHARS_MAX = 300
"""The maximum number of characters of an agent's last printed line in the message about its end."""


class Attendance:
    """Compares the agents that have connected with those that were started.

    `folder` has the logs with the agents' output.
    """

    def __init__(
        self, state: CoordinatorState, transport: Transport, folder: Path, say: Callable[[str], None]
    ) -> None:
        self._state, self._transport, self._folder, self._say = state, transport, folder, say
        self._made_ns = time.monotonic_ns()
        self._has_reported_missing = False
        self._reported: set[str] = set()

    def say_who_is_missing(self) -> None:
        """Report once, after MISSING_NS, how many agents have connected.

        Nothing is reported if none is missing, or if the coordinator itself starts the agents.
        """
        self._state.how_to_join = self._transport.how_to_join
        waited_ns = time.monotonic_ns() - self._made_ns
        if self._has_reported_missing or self._state.phase is not Phase.GATHERING or waited_ns < MISSING_NS:
            return
        self._has_reported_missing = True
        came = sum(seat.hello is not None for seat in self._state.seats)
        if self._state.how_to_join and came < len(self._state.seats):
            count = f"{came} of {len(self._state.seats)} agents have connected"
            self._say(f"{count}; start each missing agent by `{self._state.how_to_join}`")

    def never_came(self) -> list[Failed]:
        """Report agents whose processes ended before they connected, once each, and return a failure for each."""
        if self._state.phase is not Phase.GATHERING:
            return []
        came = {seat.hello.order for seat in self._state.seats if seat.hello is not None}
        failures = []
        for order, started in self._transport.started.items():
            if started.ended.is_set() and order not in came | self._reported:
                self._reported.add(order)
                self._say(f"LOST agent {order}: it ended before it connected")
                why = f"agent {order} ended before it connected: {self._last_line(order)}"
                failures.append(Failed(why, code=1))
        return failures

    def _last_line(self, order: str) -> str:
        """Return the last line that an agent printed, cut to LOG_CHARS_MAX, or `it printed nothing`."""
        log = self._folder / f"agent-{order}.log"
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return lines[-1][:LOG_CHARS_MAX] if lines else "it printed nothing"

    async def report_gone(self, act: Callable[[list[Output]], None]) -> None:
        """Record as lost each connected agent whose process has ended, unless its share has ended."""
        for seat in self._state.seats:
            if seat.hello is None or seat.gone_ns is not None or seat.end is not None:
                continue
            if await self._transport.gone(seat.hello.order):
                act(self._state.lost(seat.agent, "its process ended", time.monotonic_ns(), is_gone=True))
