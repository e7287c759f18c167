"""Chooses the address of the next connection of a portable lane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from replay.lane.addresses import AddressTable
from replay.lane.contract import Address
from replay_native.ledger.lane_metrics import LaneMetrics


class Turns:
    """Returns the addresses that a lane's table has in use, in rotation.

    With `ask`, the name is looked up for each connection, and the row that the lookup returns is used instead.
    """

    def __init__(
        self, metrics: LaneMetrics, first: int = 0, ask: Callable[[], Awaitable[int]] | None = None
    ) -> None:
        self._table, self._ask, self._next = AddressTable(metrics), ask, first
        self._version = -1
        self._chosen: list[tuple[int, Address]] = []

    async def next(self) -> tuple[int, Address]:
        """Return the next row and its address; if no row of the table is in use, one of the last known ones."""
        if self._ask is not None:
            row = await self._ask()
            return row, dict(self._table.chosen())[row]
        if self._version != self._table.version:
            self._version = self._table.version
            self._chosen = self._table.chosen() or self._chosen
        self._next += 1
        return self._chosen[(self._next - 1) % len(self._chosen)]
