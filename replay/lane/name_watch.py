"""Follows the target's name during a run: looks it up again after its TTL, or for each connection.

A failed lookup changes nothing: the run continues with the known addresses and reports the failure. The run
never connects to addresses that are not allowed. If a name has no allowed address left, the run stops, because
it would load a target that the user did not allow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from replay.errors import LimitError
from replay.names import Answer, NameFailure
from replay.results.document import AddressChange, NameFigures
from replay.units import SECOND_NS, format_duration
from replay_native.ledger.lane_metrics import LaneMetrics

from .addresses import AddressTable
from .contract import Address
from .resolve import Lookups, places

TTL_S_MIN = 1.0
"""The shortest time between lookups in seconds; shorter TTLs are raised to it."""

HOSTS_S = 5.0
"""Seconds between lookups of a name in /etc/hosts, which has no TTL."""

RETRY_S_MAX = 30.0
LATE_S = 1.0
"""A lookup that has taken at least this many seconds when the run ends counts as failed."""

CHANGES_KEPT = 100

LOOKUPS_AT_ONCE = 128
"""The most lookups that run at once; further connections wait."""

Use = Callable[[tuple[Address, ...]], Sequence[Address]]
"""Makes the lanes connect to these addresses only, and returns those that did not fit into their tables."""


@dataclass(eq=False)
class NameWatch:
    """Follows one name, starting from the answer that was received before the run.

    `allow(host)` raises LimitError if an address may not be used.
    """

    lookups: Lookups
    resolve: str
    port: int
    answer: Answer
    addresses: tuple[Address, ...]
    left_out: tuple[str, ...]
    allow: Callable[[str], None]
    looked_up_at: float = field(default_factory=trio.current_time)
    changed: int = 0
    changes: list[AddressChange] = field(default_factory=list)
    failed_at_s: float | None = None
    failure: str = ""
    no_room: int = 0
    _use: Use = field(default=lambda addresses: (), repr=False)
    _stop: Callable[[str], None] = field(default=lambda why: None, repr=False)
    _elapsed_s: Callable[[], float] = field(default=lambda: 0.0, repr=False)
    _none_left: str = ""
    _turn: int = -1
    _at_once: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(LOOKUPS_AT_ONCE))

    @property
    def is_per_connection(self) -> bool:
        """Whether lanes request an address for each connection."""
        return self.resolve == "per-connection" and self.answer.source != "literal"

    def begin(self, use: Use, stop: Callable[[str], None], elapsed_s: Callable[[], float]) -> None:
        """Set where addresses are published, and the `stop(why)` to call when the name has no allowed address left."""
        self._use, self._stop, self._elapsed_s = use, stop, elapsed_s

    async def run(self) -> None:
        """Follow the name until cancelled, or until no allowed address is left.

        Returns at once if the target is an address, or if the name is not looked up again by its TTL.
        """
        if self.resolve != "ttl" or self.answer.source == "literal":
            return
        retry_s = TTL_S_MIN
        await trio.sleep_until(self.looked_up_at + self._ttl_s())
        while True:
            begin_s, ended = trio.current_time(), self.lookups.ended
            try:
                self.answer = await self.lookups.one()
            except NameFailure as error:
                self._lost(str(error))
                await trio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)
                continue
            finally:
                if self.lookups.ended == ended:
                    self._left_unanswered(trio.current_time() - begin_s)
            retry_s = TTL_S_MIN
            if not self._follow():
                return
            await trio.sleep(self._ttl_s())

    async def row_for(self, metrics: LaneMetrics) -> int:
        """Look the name up for one new connection, and return the row of one of its addresses, in rotation.

        If the lookup fails or finds no allowed address, a known one is used. Addresses are added to the lanes'
        tables and are not removed during the run, because a client that holds a connection does not notice that
        its address was removed from the name.
        """
        async with self._at_once:
            try:
                self.answer = await self.lookups.one()
                found = self._add_allowed() or self.addresses
            except NameFailure as error:
                self._lost(str(error))
                found = self.addresses
        self._turn += 1
        return AddressTable(metrics).row_of(found[self._turn % len(found)])

    def _add_allowed(self) -> tuple[Address, ...]:
        """Add the allowed addresses of the answer to the known ones, and return those that lanes can use.

        If the answer has no allowed address, the run is stopped.
        """
        allowed, refused = self._allowed(places(self.answer, self.port))
        added = [address for address in allowed if address not in self.addresses]
        if added or refused:
            self._note(added=[address.host for address in added], refused=refused)
        if added:
            self._switch((*self.addresses, *added))
        if not allowed:
            self._stop(self._none_left)
        return tuple(address for address in allowed if address in self.addresses)

    def _switch(self, addresses: tuple[Address, ...]) -> None:
        """Publish these addresses to the lanes, as far as their tables have space.

        If none of them fits, the present addresses are kept.
        """
        full = self._use(addresses)
        self.no_room += len(full)
        kept = tuple(address for address in addresses if address not in full)
        if kept:
            self.addresses = kept
        else:
            self._use(self.addresses)

    def _allowed(self, found: tuple[Address, ...]) -> tuple[list[Address], list[str]]:
        """Return the allowed addresses, and the hosts of the others."""
        allowed, refused = [], []
        for address in self._of_known_family(found):
            try:
                if address not in self.addresses:
                    self.allow(address.host)
                allowed.append(address)
            except LimitError as error:
                refused.append(address.host)
                self._none_left = f"{self.lookups.name} now has no address that is allowed: {error}"
        return allowed, refused

    def _lost(self, why: str, ago_s: float = 0.0) -> None:
        if self.failed_at_s is None:
            self.failed_at_s, self.failure = max(self._elapsed_s() - ago_s, 0.0), why

    def _left_unanswered(self, waited_s: float) -> None:
        """Count a lookup as failed if it was late when the run ended, and had no answer."""
        if waited_s >= LATE_S:
            self.lookups.failed += 1
            waited = format_duration(round(waited_s * SECOND_NS))
            why = f"no answer from the name server {self.lookups.servers()} in {waited}, until the run ended"
            self._lost(why, waited_s)

    def _ttl_s(self) -> float:
        return HOSTS_S if self.answer.ttl_s is None else max(float(self.answer.ttl_s), TTL_S_MIN)

    def _follow(self) -> bool:
        """Make the lanes use only the allowed addresses of the answer.

        If there is none, stop the run and return False.
        """
        allowed, refused = self._allowed(places(self.answer, self.port))
        before, now = set(self.addresses), set(allowed)
        if before == now and not refused:
            return True
        self._note(
            added=[address.host for address in allowed if address not in before],
            removed=[address.host for address in self.addresses if address not in now],
            refused=refused,
        )
        if not allowed:
            self._stop(self._none_left)
            return False
        self._switch(tuple(allowed))
        return True

    def _note(self, added: list[str], refused: list[str], removed: list[str] | None = None) -> None:
        """Count a change, unless it only repeats the addresses that were refused last.

        Only the first CHANGES_KEPT changes are listed.
        """
        if self.changes and not added and not removed and refused == self.changes[-1].refused:
            return
        self.changed += 1
        if len(self.changes) < CHANGES_KEPT:
            at_s = round(max(self._elapsed_s(), 0.0), 3)
            self.changes.append(AddressChange(at_s=at_s, added=added, removed=removed or [], refused=refused))

    def _of_known_family(self, found: tuple[Address, ...]) -> tuple[Address, ...]:
        """Leave out addresses of a family (IPv4, IPv6) that no known address has.

        No connection to such a family has succeeded before the run. If no address is of a known family, none is
        left out.
        """
        families = {address.ipv6 for address in self.addresses}
        return tuple(address for address in found if address.ipv6 in families) or found

    def figures(self) -> NameFigures | None:
        """Return the lookup statistics; None if the target is an address."""
        if self.answer.source == "literal":
            return None
        lookups = self.lookups
        return NameFigures(
            name=lookups.name,
            resolve=self.resolve,
            source=self.answer.source,
            ttl_s=self.answer.ttl_s,
            lookups=lookups.count,
            lookups_failed=lookups.failed,
            queries=lookups.queries,
            answers=dict(lookups.answers.most_common()),
            lookup_mean_ns=round(lookups.total_ns / lookups.ended) if lookups.ended else 0,
            lookup_max_ns=lookups.longest_ns,
            changed=self.changed,
            changes=self.changes,
            left_out=list(self.left_out),
            no_room=self.no_room,
            failed_at_s=None if self.failed_at_s is None else round(self.failed_at_s, 3),
            failure=self.failure,
        )
