"""Detects that the followed source contains this run's own requests, which would then be sent again and again.

The run's own requests have no mark, so their timing is compared. An own request returns as an entry with the same
method and target, recorded at the time at which it was due. Other traffic has no reason to repeat after the whole
delay more often than after half of it. If entries match at the whole delay and not at the half, they are this run's
own.

Two measures decide. The wide one tolerates a late generator and a late server, but works only for targets that are
requested now and then. The narrow one also works for targets that are requested all the time, if own requests
return at once. If entries are frequent, only a share of the keys (hashes of method and target) is checked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque

from replay.units import MS_NS, SECOND_NS

from .selecting import Entries

WIDE_NS, NARROW_NS = 300 * MS_NS, 25 * MS_NS
"""How far a match may be from the due time, beyond the resolution of the stamps; at most a fifth of the delay."""

KEYS_PER_S_MAX = 400
"""Each time that more entries than this are checked in a second, the share of checked keys is halved."""

LEAST = 8
"""The minimum number of matches in WINDOW_S, for both measures."""

SHARE, STRAY_SHARE = 0.45, 0.3
"""The wide measure: SHARE of the entries must match at the whole delay, and at the half at most STRAY_SHARE of those.

In a loop, half of the entries match after one delay, and more of them later.
"""

NARROW_SHARE, NARROW_EXCESS = 0.6, 0.3
"""The narrow measure: NARROW_SHARE of entries must match at the whole delay, and NARROW_EXCESS more than at the half."""

WINDOW_S = 30


class OwnRequests:
    """Counts entries that look like requests of this run.

    `found` is the largest number of them in WINDOW_S so far; it stays 0 until one of the measures is met.
    """

    def __init__(self, delay_ns: int, resolution_ns: int) -> None:
        self._delay_ns = delay_ns
        self._wide_ns = min(WIDE_NS + resolution_ns, delay_ns // 5) + 1
        self._narrow_ns = min(NARROW_NS + resolution_ns, delay_ns // 5) + 1
        self._sent: dict[int, list[int]] = defaultdict(list)
        self._now = [0] * 5
        self._seconds: deque[list[int]] = deque(maxlen=WINDOW_S)
        self._mask = 0
        self._newest_ns = 0
        self.found = 0

    def released(self, entries: Entries) -> None:
        """Note entries that were released; each is due the delay after it was recorded."""
        for key, start_ns in self._sampled(entries):
            self._sent[key].append(start_ns + self._delay_ns)
            self._newest_ns = max(self._newest_ns, start_ns + self._delay_ns)

    def entered(self, entries: Entries) -> None:
        """Compare entries that arrived from the source with the requests that were released."""
        now, half_ns = self._now, self._delay_ns // 2
        for key, start_ns in self._sampled(entries):
            now[0] += 1
            due = self._sent.get(key)
            if due:
                now[1] += _has(due, start_ns, self._wide_ns)
                now[2] += _has(due, start_ns - half_ns, self._wide_ns)
                now[3] += _has(due, start_ns, self._narrow_ns)
                now[4] += _has(due, start_ns - half_ns, self._narrow_ns)

    def _sampled(self, entries: Entries) -> list[tuple[int, int]]:
        keys = entries.key
        rows = (keys & self._mask) == 0
        return list(zip(keys[rows].tolist(), entries.start_ns[rows].tolist(), strict=True))

    def second(self) -> int:
        """Return how many of the entries checked in the last WINDOW_S are this run's own, or 0 if that is not certain.

        It must be called once per second.
        """
        if self._now[0] > KEYS_PER_S_MAX:
            self._mask = self._mask << 1 | 1
        self._seconds.append(self._now)
        self._now = [0] * 5
        before_ns = self._newest_ns - 2 * self._delay_ns - 10 * SECOND_NS
        for key in list(self._sent):
            due = self._sent[key]
            del due[: bisect_left(due, before_ns)]
            if not due:
                del self._sent[key]
        looked, wide, wide_stray, narrow, narrow_stray = (
            sum(second[place] for second in self._seconds) for place in range(5)
        )
        is_wide = wide >= max(LEAST, SHARE * looked) and wide_stray <= STRAY_SHARE * wide
        is_narrow = (
            narrow >= max(LEAST, NARROW_SHARE * looked) and narrow - narrow_stray >= NARROW_EXCESS * looked
        )
        if not is_wide and not is_narrow:
            return 0
        count = wide if is_wide else narrow
        self.found = max(self.found, count)
        return count


def _has(due: list[int], at_ns: int, tolerance_ns: int) -> bool:
    """Return whether one of these sorted instants is within the tolerance of `at_ns`."""
    place = bisect_left(due, at_ns - tolerance_ns)
    return place < len(due) and due[place] <= at_ns + tolerance_ns
