"""Notices that the followed source holds this run's own requests: every request then comes back, and is sent again.

Nothing marks our requests, so what is compared is the timing. A request of ours that is due at an instant comes back as an
entry of the same method and target that was recorded at that instant. Traffic of others has no reason to repeat itself
after our delay more than after half of it: entries that match at the whole delay and not at the half are ours. Only some
keys are looked at when there are many.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque

from replay.units import MS_NS, SECOND_NS

from .selecting import Entries

TOLERANCE_NS = 300 * MS_NS
KEYS_PER_S_MAX = 400
"""Keys that are looked at in a second."""

LEAST = 8
"""Matches that are needed."""

SHARE = 0.45
"""The share of entries that match, from which they are taken for ours: in a loop it is a half after one delay, then more."""

STRAY_SHARE = 0.3
"""The matches at half of the delay, as a share of those at the whole, up to which these are no coincidence."""

WINDOW_S = 30


class OwnRequests:
    """Counts entries that look like requests of this run. `found` is how many of the last ones do, once that is certain."""

    def __init__(self, delay_ns: int, resolution_ns: int) -> None:
        self._delay_ns = delay_ns
        self._tolerance_ns = min(TOLERANCE_NS + resolution_ns, delay_ns // 5) + 1
        self._sent: dict[int, list[int]] = defaultdict(list)
        self._seconds: deque[tuple[int, int, int]] = deque(maxlen=WINDOW_S)
        self._looked = self._matched = self._stray = 0
        self._mask = 0
        self._newest_ns = 0
        self.found = 0

    def released(self, entries: Entries) -> None:
        """These were sent, each `delay` after it was recorded."""
        for key, start_ns in self._sampled(entries):
            self._sent[key].append(start_ns + self._delay_ns)
            self._newest_ns = max(self._newest_ns, start_ns + self._delay_ns)

    def entered(self, entries: Entries) -> None:
        """These came from the source."""
        for key, start_ns in self._sampled(entries):
            self._looked += 1
            due = self._sent.get(key)
            if due:
                self._matched += self._has(due, start_ns)
                self._stray += self._has(due, start_ns - self._delay_ns // 2)

    def _sampled(self, entries: Entries) -> list[tuple[int, int]]:
        keys = entries.key
        rows = (keys & self._mask) == 0
        return list(zip(keys[rows].tolist(), entries.start_ns[rows].tolist(), strict=True))

    def _has(self, due: list[int], at_ns: int) -> bool:
        """Whether one of these instants, which are in order, is as good as this one."""
        place = bisect_left(due, at_ns - self._tolerance_ns)
        return place < len(due) and due[place] <= at_ns + self._tolerance_ns

    def second(self) -> int:
        """Once a second: how many entries of the last ones are ours; 0 where that is not certain."""
        if self._looked > KEYS_PER_S_MAX:
            self._mask = self._mask << 1 | 1
        self._seconds.append((self._looked, self._matched, self._stray))
        self._looked = self._matched = self._stray = 0
        before_ns = self._newest_ns - 2 * self._delay_ns - 10 * SECOND_NS
        for key in list(self._sent):
            due = self._sent[key]
            del due[: bisect_left(due, before_ns)]
            if not due:
                del self._sent[key]
        looked, matched, stray = (sum(second[place] for second in self._seconds) for place in range(3))
        if matched >= LEAST and matched >= SHARE * looked and stray <= STRAY_SHARE * matched:
            self.found = max(self.found, matched)
            return matched
        return 0
