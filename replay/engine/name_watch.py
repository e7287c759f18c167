"""The target's name during a run: looked up again as its TTL says; lanes follow, as far as that is allowed.

A lookup that fails changes nothing: the run goes on with the addresses it has, and says so. Addresses that are not
allowed are never connected to; where a name has no other any more, the run is stopped: what it would go on to load
is no longer what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from replay.errors import LimitError
from replay.names import Answer, NameFailure
from replay.results.document import AddressChange, NameFigures

from .contract import Address
from .resolve import Lookups, places

TTL_S_MIN = 1.0
"""A shorter TTL is looked up again after this long: TTL 0 is for `per-connection`."""

HOSTS_S = 5.0
"""Between two looks at a name of /etc/hosts, which has no TTL."""

RETRY_S_MAX = 30.0
CHANGES_KEPT = 100

Use = Callable[[tuple[Address, ...]], object]
"""Have the lanes connect to these, and no others."""


@dataclass(eq=False)
class NameWatch:
    """One name, from the answer before the start. `allow(host)` raises LimitError where an address may not be used."""

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

    async def run(self, use: Use, stop: Callable[[str], None], elapsed_s: Callable[[], float]) -> None:
        """Follow the name until cancelled, or until `stop(why)` was called because it left what is allowed."""
        if self.resolve == "once" or self.answer.source == "literal":
            return
        retry_s = TTL_S_MIN
        await trio.sleep_until(self.looked_up_at + self._ttl_s())
        while True:
            try:
                self.answer = await self.lookups.one()
            except NameFailure as error:
                if self.failed_at_s is None:
                    self.failed_at_s, self.failure = max(elapsed_s(), 0.0), str(error)
                await trio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)
                continue
            retry_s = TTL_S_MIN
            if why := self._follow(use, elapsed_s()):
                stop(why)
                return
            await trio.sleep(self._ttl_s())

    def _ttl_s(self) -> float:
        return HOSTS_S if self.answer.ttl_s is None else max(float(self.answer.ttl_s), TTL_S_MIN)

    def _follow(self, use: Use, at_s: float) -> str:
        """Have the lanes use what the answer allows; why the run has to stop, or nothing."""
        allowed, refused, reason = [], [], ""
        for address in self._of_known_family(places(self.answer, self.port)):
            try:
                if address not in self.addresses:
                    self.allow(address.host)
                allowed.append(address)
            except LimitError as error:
                refused.append(address.host)
                reason = str(error)
        before, now = set(self.addresses), set(allowed)
        if before == now and not refused:
            return ""
        self._note(
            AddressChange(
                at_s=round(max(at_s, 0.0), 3),
                added=[address.host for address in allowed if address not in before],
                removed=[address.host for address in self.addresses if address not in now],
                refused=refused,
            )
        )
        if not allowed:
            return f"{self.lookups.name} now has no address that is allowed: {reason}"
        self.addresses = tuple(allowed)
        use(self.addresses)
        return ""

    def _note(self, change: AddressChange) -> None:
        """Write a change down, unless it is the last one still."""
        same = (
            self.changes
            and not (change.added or change.removed)
            and change.refused == self.changes[-1].refused
        )
        if not same:
            self.changed += 1
            if len(self.changes) < CHANGES_KEPT:
                self.changes.append(change)

    def _of_known_family(self, found: tuple[Address, ...]) -> tuple[Address, ...]:
        """Without a family that took no connection before the start, unless there is nothing else."""
        families = {address.ipv6 for address in self.addresses}
        return tuple(address for address in found if address.ipv6 in families) or found

    def figures(self) -> NameFigures | None:
        """What it took; None where the target is an address."""
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
            lookup_mean_ns=round(lookups.total_ns / lookups.count) if lookups.count else 0,
            lookup_max_ns=lookups.longest_ns,
            changed=self.changed,
            changes=self.changes,
            left_out=list(self.left_out),
            failed_at_s=None if self.failed_at_s is None else round(self.failed_at_s, 3),
            failure=self.failure,
        )
