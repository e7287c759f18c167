"""The control plane's side of the lanes' address tables: where lanes may connect, initially and during the run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from replay_native.feed.addresses import (
    ADDRESSES_MAX,
    IN_USE,
    REMOVED,
    UNUSED,
    pack_address,
    unpack_address,
)
from replay_native.ground import shared
from replay_native.ledger.lane_metrics import Control, LaneMetrics

from .contract import Address


class AddressTable:
    """The address table of one lane. Only one thread may write to it; the lane reads it when its version changes."""

    def __init__(self, metrics: LaneMetrics) -> None:
        self._metrics = metrics

    @property
    def version(self) -> int:
        """The number of changes so far; 0 before the first."""
        return int(shared.read_word(self._metrics.control, Control.ADDRESSES))

    def use(self, addresses: Iterable[Address]) -> list[Address]:
        """Set the addresses that the lane connects to, and end its connections to all others.

        The caller must wake the lane afterwards. Returns the addresses that did not fit into the table; they
        are not used.
        """
        packed = {pack_address(address.host, address.port): address for address in addresses}
        for row, known in enumerate(self._rows()):
            wanted = packed.pop(known, None) is not None
            shared.write_word(self._metrics.address_states, row, IN_USE if wanted else REMOVED)
        row = len(self._rows())
        left_out = list(packed.values())[max(ADDRESSES_MAX - row, 0) :]
        for raw in list(packed)[: ADDRESSES_MAX - row]:
            self._metrics.addresses[row] = memoryview(raw)
            shared.write_word(self._metrics.address_states, row, IN_USE)
            row += 1
        shared.write_word(self._metrics.control, Control.ADDRESSES, self.version + 1)
        return left_out

    def begin(self, addresses: Sequence[Address]) -> None:
        """Set the initial addresses, unless some were published before."""
        if self.version == 0:
            self.use(addresses)

    def row_of(self, address: Address) -> int:
        """Return the row of an address. Raises ValueError if the address is not in the table."""
        return self._rows().index(pack_address(address.host, address.port))

    def chosen(self) -> list[tuple[int, Address]]:
        """Return the rows in use, with their addresses."""
        return [
            (row, Address(host, port, ":" in host))
            for row, (host, port) in enumerate(map(unpack_address, self._rows()))
            if shared.read_word(self._metrics.address_states, row) == IN_USE
        ]

    def is_removed(self, row: int) -> bool:
        """Return whether connections to this row must end."""
        return bool(shared.read_word(self._metrics.address_states, row) == REMOVED)

    def _rows(self) -> list[bytes]:
        used = int((self._metrics.address_states != UNUSED).sum())
        return [row.tobytes() for row in self._metrics.addresses[:used]]
