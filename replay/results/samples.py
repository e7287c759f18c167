"""Sampled requests of each route, with all their time stamps.

They are the slowest requests, the first failed requests, and the first whose response failed a check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np

from replay_native.ledger.catalog import COUNTERS, MALFORMED, OUTCOMES, SAMPLES_KEPT, UNSENT

from .beginnings import shown
from .document import ClockPair, RecordedClock
from .traces import trace_id

if TYPE_CHECKING:
    from replay_native.ledger.lane_metrics import LaneMetrics


class RecordedRow(NamedTuple):
    """A row of the trace: when it was recorded (ns since the epoch), and its request."""

    at_ns: int
    method: str
    target: str


Lookup = Callable[[list[int]], Mapping[int, RecordedRow]]
"""Maps sequence numbers to their recorded rows; unknown numbers are left out."""


SampleKind = Literal["slowest", "failed", "mismatched"]


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request in full.

    Stamps are ns since the start of the run; a missing stamp is left out. For a request that was not sent, the
    response time is a lower bound (`at_least`), and `reason` is the account that counts it. `rule` is the first check
    that a mismatched response failed. For a malformed response `problem` is what is wrong with it, and `begins` is
    the start of its first line, without possible secrets. `trace_id` is that of the traceparent in the request
    (`--traceparent`).
    """

    kind: SampleKind
    route: str
    seq: int
    client: int
    outcome: str
    reason: str = ""
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
    rule: str = ""
    problem: str = ""
    begins: str = ""
    trace_id: str = ""


def iso(at_ns: int, utc_offset_s: int = 0) -> str:
    """Return ns since the epoch as ISO 8601 with its time zone, exact to the microsecond."""
    zone = timezone(timedelta(seconds=utc_offset_s))
    moment = datetime.fromtimestamp(at_ns // 1_000_000_000, zone) + timedelta(
        microseconds=at_ns % 1_000_000_000 // 1000
    )
    return moment.isoformat(timespec="microseconds")


Beginning = bytes
"""The first bytes of a response. The alias is needed because `_Raw` has a field `bytes`."""


class _Raw(NamedTuple):
    """The fields of `replay_native.ledger.lane_metrics.SAMPLE`, in its order."""

    seq: int
    due_ns: int
    taken_ns: int
    sent_ns: int
    first_byte_ns: int
    done_ns: int
    bytes: int
    route: int
    client: int
    status: int
    outcome: int
    rule: int
    problem: int = 0
    beginning: Beginning = b""


def collect(
    all_metrics: Sequence[LaneMetrics],
    names: Sequence[str],
    start: ClockPair,
    clock: RecordedClock | None = None,
    lookup: Lookup | None = None,
    rules: Sequence[str] = (),
    trace_seeds: Mapping[str, int] | None = None,
) -> list[Sample]:
    """Return the samples of all lanes by route: the slowest, then the first failed, then the first mismatched.

    `names` are the names of the rows, `rules` the names of the captures and checks. `trace_seeds` has a seed of trace
    ids for each route whose requests have a traceparent.
    """
    found: list[tuple[SampleKind, str, _Raw]] = []
    for row, name in enumerate(names):
        found += [("slowest", name, raw) for raw in _slowest(all_metrics, row)]
        found += [("failed", name, raw) for raw in _failed(all_metrics, row)]
        if rules:
            found += [("mismatched", name, raw) for raw in _mismatched(all_metrics, row)]
    rows = lookup([raw.seq for _, _, raw in found]) if lookup and found else {}
    offset_s = clock.utc_offset_s if clock else 0
    return [
        _traced(
            _sample(kind, name, raw, start, offset_s, rows.get(raw.seq), rules),
            (trace_seeds or {}).get(name, 0),
        )
        for kind, name, raw in found
    ]


def _traced(sample: Sample, seed: int) -> Sample:
    """Add the trace id to a sample, unless the request was never sent or its route has no traceparent."""
    if not seed or sample.sent_ns is None:
        return sample
    return msgspec.structs.replace(sample, trace_id=trace_id(seed, sample.seq))


def _kept(samples: np.ndarray, count: int) -> list[_Raw]:
    return [_Raw(*row) for row in samples[: min(count, SAMPLES_KEPT)].tolist()]


def _slowest(all_metrics: Sequence[LaneMetrics], row: int) -> list[_Raw]:
    kept = [
        raw
        for metrics in all_metrics
        for raw in _kept(metrics.slowest[row], int(metrics.slowest_counts[row]))
    ]
    return sorted(kept, key=lambda raw: raw.due_ns - raw.done_ns)[:SAMPLES_KEPT]


def _failed(all_metrics: Sequence[LaneMetrics], row: int) -> list[_Raw]:
    kept = []
    for metrics in all_metrics:
        samples = _kept(metrics.failed[row], int(metrics.failed_counts[row]))
        for raw, (problem, count, *beginning) in zip(samples, metrics.malformed[row].tolist(), strict=False):
            is_malformed = raw.outcome == MALFORMED
            kept.append(
                raw._replace(problem=problem, beginning=bytes(beginning[:count])) if is_malformed else raw
            )
    return sorted(kept, key=lambda raw: raw.due_ns)[:SAMPLES_KEPT]


def _mismatched(all_metrics: Sequence[LaneMetrics], row: int) -> list[_Raw]:
    kept = [
        raw
        for metrics in all_metrics
        for raw in _kept(metrics.mismatched[row], int(metrics.mismatched_counts[row]))
    ]
    return sorted(kept, key=lambda raw: raw.due_ns)[:SAMPLES_KEPT]


def _sample(
    kind: SampleKind,
    name: str,
    raw: _Raw,
    start: ClockPair,
    offset_s: int,
    row: RecordedRow | None,
    rules: Sequence[str],
) -> Sample:
    from replay_native.http1.parser import REASONS

    zero = start.monotonic_ns
    unsent = raw.outcome == UNSENT
    due_ns = raw.due_ns - zero
    return Sample(
        kind=kind,
        route=name,
        seq=raw.seq,
        client=raw.client,
        outcome=OUTCOMES[raw.outcome],
        reason=COUNTERS[raw.status].removeprefix("unsent_") if unsent else "",
        status=None if unsent else raw.status or None,
        method=row.method if row else "",
        path=row.target if row else "",
        recorded_ns=row.at_ns if row else None,
        recorded_at=iso(row.at_ns, offset_s) if row else "",
        due_wall_ns=start.wall_ns + due_ns,
        due_at=iso(start.wall_ns + due_ns),
        due_ns=due_ns,
        taken_ns=raw.taken_ns - zero if raw.taken_ns >= 0 else None,
        sent_ns=raw.sent_ns - zero if raw.sent_ns >= 0 else None,
        first_byte_ns=raw.first_byte_ns - zero if raw.first_byte_ns >= 0 else None,
        done_ns=None if unsent else raw.done_ns - zero,
        response_ns=raw.done_ns - raw.due_ns,
        at_least=unsent,
        bytes=raw.bytes,
        rule=rules[raw.rule] if 0 <= raw.rule < len(rules) else "",
        problem=REASONS[raw.problem],
        begins=shown(raw.beginning),
    )
