"""The requests worth looking at: the slowest and first failed of each route, with all their stamps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from replay_native.bank import OUTCOMES, SAMPLES_KEPT, UNSENT, Bank

from .document import ClockPair, RecordedClock


class RecordedRow(NamedTuple):
    """A row of the trace: when it was recorded (ns since the epoch), and what was asked."""

    at_ns: int
    method: str
    target: str


Lookup = Callable[[list[int]], Mapping[int, RecordedRow]]
"""From sequence numbers to their recorded rows; those it does not know are left out."""


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request in full. Stamps are ns since the start of the run; one that never happened is left out.
    The response of a request that was never sent is what it was felt as, `at_least`."""

    kind: Literal["slowest", "failed"]
    route: str
    seq: int
    client: int
    outcome: str
    status: int | None = None
    method: str = ""
    path: str = ""
    recorded_ns: int | None = None
    recorded_at: str = ""
    due_wall_ns: int
    due_at: str
    due_ns: int
    taken_ns: int | None = None
    sent_ns: int | None = None
    first_byte_ns: int | None = None
    done_ns: int | None = None
    response_ns: int | None = None
    at_least: bool = False
    bytes: int = 0


def iso(at_ns: int, utc_offset_s: int = 0) -> str:
    """ns since the epoch as ISO 8601 with its zone, to the microsecond, exactly."""
    zone = timezone(timedelta(seconds=utc_offset_s))
    moment = datetime.fromtimestamp(at_ns // 1_000_000_000, zone) + timedelta(
        microseconds=at_ns % 1_000_000_000 // 1000
    )
    return moment.isoformat(timespec="microseconds")


def collect(
    banks: Sequence[Bank],
    names: Sequence[str],
    start: ClockPair,
    clock: RecordedClock | None = None,
    lookup: Lookup | None = None,
) -> list[Sample]:
    """The samples of all lanes, by route: the slowest ones first, then the first failed. `names` has a name
    for every row.
    """
    found = []
    for row, name in enumerate(names):
        for kind, picked in (("slowest", _slowest(banks, row)), ("failed", _failed(banks, row))):
            found += [(kind, name, sample) for sample in picked]
    rows = lookup([int(sample["seq"]) for _, _, sample in found]) if lookup and found else {}
    offset_s = clock.utc_offset_s if clock else 0
    return [_sample(kind, name, raw, start, offset_s, rows.get(int(raw["seq"]))) for kind, name, raw in found]


def _slowest(banks: Sequence[Bank], row: int) -> list[np.void]:
    kept = [
        s for bank in banks for s in bank.slowest[row, : min(int(bank.slowest_counts[row]), SAMPLES_KEPT)]
    ]
    return sorted(kept, key=lambda s: -_response_ns(s))[:SAMPLES_KEPT]


def _failed(banks: Sequence[Bank], row: int) -> list[np.void]:
    kept = [s for bank in banks for s in bank.failed[row, : min(int(bank.failed_counts[row]), SAMPLES_KEPT)]]
    return sorted(kept, key=lambda s: int(s["due_ns"]))[:SAMPLES_KEPT]


def _response_ns(sample: np.void) -> int:
    return int(sample["done_ns"]) - int(sample["due_ns"]) if sample["done_ns"] >= 0 else -1


def _sample(
    kind: str, name: str, raw: np.void, start: ClockPair, offset_s: int, row: RecordedRow | None
) -> Sample:
    zero = start.monotonic_ns
    unsent = raw["outcome"] == UNSENT
    stamps = {
        stamp: int(raw[stamp]) - zero if raw[stamp] >= 0 and not (unsent and stamp == "done_ns") else None
        for stamp in ("taken_ns", "sent_ns", "first_byte_ns", "done_ns")
    }
    due_ns = int(raw["due_ns"]) - zero
    due_wall_ns = start.wall_ns + due_ns
    return Sample(
        kind=kind,  # type: ignore[arg-type]
        route=name,
        seq=int(raw["seq"]),
        client=int(raw["client"]),
        outcome=OUTCOMES[raw["outcome"]] if 0 <= raw["outcome"] < len(OUTCOMES) else "unknown",
        status=int(raw["status"]) if raw["status"] > 0 else None,
        method=row.method if row else "",
        path=row.target if row else "",
        recorded_ns=row.at_ns if row else None,
        recorded_at=iso(row.at_ns, offset_s) if row else "",
        due_wall_ns=due_wall_ns,
        due_at=iso(due_wall_ns),
        due_ns=due_ns,
        response_ns=_response_ns(raw) if raw["done_ns"] >= 0 else None,
        at_least=bool(unsent),
        bytes=int(raw["bytes"]),
        **stamps,
    )
