"""Matches consumed records with produced ones: by the offset in their own topic, or by an answer's join key."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np


@dataclass(slots=True)
class Offsets:
    """One partition's records, joined by offset.

    Both acknowledged and received records are in the order of their offsets.
    """

    acks: deque[tuple[int, np.ndarray]] = field(default_factory=deque)
    seen: deque[tuple[int, int, int]] = field(default_factory=deque)
    skipped: list[np.ndarray] = field(default_factory=list)
    """Due times of records whose offsets the consumer has passed without receiving them."""

    def join(self) -> list[np.ndarray]:
        """Join what both sides have delivered, and return the latencies of the measured records."""
        found = []
        while self.acks and self.seen:
            (first, dues), (seen_first, seen_end, seen_ns) = self.acks[0], self.seen[0]
            end = first + len(dues)
            low, high = max(first, seen_first), min(end, seen_end)
            if high > low:
                known = dues[low - first : high - first]
                found.append(seen_ns - known[known > 0])
            if low > first:
                self.skipped.append(dues[: min(low, end) - first])
            if end <= seen_end:
                self.acks.popleft()
            elif seen_end > first:
                self.acks[0] = (seen_end, dues[seen_end - first :])
            if seen_end <= end:
                self.seen.popleft()
            elif end > seen_first:
                self.seen[0] = (end, seen_end, seen_ns)
        return found


@dataclass(slots=True)
class Answers:
    """Records that wait for an answer, by join key, and answers that arrived before their record was acknowledged.

    `owed` counts the waiting records, and `strange` the answers that belong to no record.
    """

    waiting: dict[bytes, deque[int]] = field(default_factory=dict)
    early: dict[bytes, deque[int]] = field(default_factory=dict)
    order: deque[tuple[int, bytes]] = field(default_factory=deque)
    early_order: deque[tuple[int, bytes]] = field(default_factory=deque)
    strange: int = 0
    owed: int = 0

    def sent(self, known_by: bytes, due: int) -> int | None:
        """Add an acknowledged record, and return its latency if its answer has already arrived; otherwise None.

        A negated due time means that the record belongs to the warm-up and is not measured.
        """
        early = self.early.get(known_by)
        while early:
            seen_ns = early.popleft()
            if not early:
                del self.early[known_by]
            if seen_ns > abs(due):
                return seen_ns - due if due > 0 else None
            self.strange += 1
        self.waiting.setdefault(known_by, deque()).append(due)
        self.order.append((due, known_by))
        self.owed += 1
        return None

    def came(self, known_by: bytes, seen_ns: int) -> int | None:
        """Add an answer, and return the latency if its record is waiting for it and is measured; otherwise None."""
        waiting = self.waiting.get(known_by)
        if not waiting:
            self.early.setdefault(known_by, deque()).append(seen_ns)
            self.early_order.append((seen_ns, known_by))
            return None
        due = waiting.popleft()
        if not waiting:
            del self.waiting[known_by]
        self.owed -= 1
        return seen_ns - due if due > 0 else None

    def expire(self, before_ns: int) -> list[int]:
        """Give up records that were due before this time, and return the due times of the measured ones.

        Answers that arrived before this time and belong to no record are counted as strange.
        """
        missing = []
        while self.order and (abs(self.order[0][0]) < before_ns or self.order[0][1] not in self.waiting):
            due, known_by = self.order.popleft()
            waiting = self.waiting.get(known_by)
            if waiting and waiting[0] == due:
                waiting.popleft()
                if not waiting:
                    del self.waiting[known_by]
                self.owed -= 1
                if due > 0:
                    missing.append(due)
        while self.early_order and (
            self.early_order[0][0] < before_ns or self.early_order[0][1] not in self.early
        ):
            seen_ns, known_by = self.early_order.popleft()
            early = self.early.get(known_by)
            if early and early[0] == seen_ns:
                early.popleft()
                if not early:
                    del self.early[known_by]
                self.strange += 1
        return missing
