"""Derives a trace from another one: a window, some routes, a sample, a multiple, another speed, or other targets.

The steps always run in this order, whatever the order of the flags; each is recorded in the history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from replay.errors import InputError, UsageError
from replay.settings.kinds import Scale
from replay.settings.scenario import Scenario
from replay.trace import Batch, DerivedTraceWriter, Trace, with_requests
from replay.units import SECOND_NS
from replay_native.ground.jit import warm
from replay_native.workload import scale as kernels

from .rewrite import read_rewrite
from .sessions import CloneSessions
from .steps import (
    Events,
    Grow,
    Keep,
    Sample,
    Speed,
    Step,
)

FACTOR_MAX = 10_000.0
"""Maximum growth factor. A larger one is assumed to be a mistake, because nearly all events would be copies."""

PEAK_WINDOW_NS = 60 * SECOND_NS
"""A target peak is the rate of the busiest minute."""

_PEAK_PARTS_MAX = 1 << 24
"""Maximum number of bins in the search for the busiest minute.

With bins of one second this is half a year; for longer traces the bins are longer.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """The requested changes.

    `from_ns` and `until_ns` are since the epoch. `peak_per_s` (of the busiest minute) and `compress_to_ns` (the
    length of the whole) become factors once the trace is known. The peak is that of the result when it is replayed at
    `replayed_speed`.
    """

    from_ns: int | None = None
    until_ns: int | None = None
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    sample: float | None = None
    sample_by: Literal["request", "client"] = "request"
    scale: Scale = field(default_factory=Scale)
    grow: Literal["requests", "sessions", "repeat"] = "requests"
    peak_per_s: float | None = None
    speed: float = 1.0
    compress_to_ns: int | None = None
    replayed_speed: float = 1.0
    rewrite: tuple[str, ...] = ()
    seed: int = 1

    @classmethod
    def of(cls, scenario: Scenario) -> Transform:
        """Return the changes in a scenario's settings.

        Window and speed are left out. A schedule's clock handles them; other callers set them.
        """
        return cls(
            only=scenario.only,
            without=scenario.without,
            sample=None if scenario.sample is None else float(scenario.sample),
            sample_by=scenario.sample_by,
            scale=scenario.scale,
            grow=scenario.grow,
            peak_per_s=None if scenario.peak_per_s is None else float(scenario.peak_per_s),
            rewrite=scenario.rewrite,
            seed=scenario.seed,
        )

    @property
    def changes(self) -> bool:
        """Whether the transform does more than select a window."""
        return bool(
            self.only or self.without or self.sample is not None or self.scale or self.peak_per_s is not None
            or self.speed != 1.0 or self.compress_to_ns is not None or self.rewrite
        )  # fmt: skip


class _Pipeline:
    """The chain of steps over a window of a trace."""

    def __init__(self, trace: Trace, from_ns: int | None, until_ns: int | None) -> None:
        self.trace, self.history, self.ordered = trace, list[dict[str, Any]](), True
        self.events: Events = lambda: trace.batches(from_ns, until_ns)
        if from_ns is not None or until_ns is not None:
            self.history.append({"transform": "window", "from_ns": from_ns, "until_ns": until_ns})

    def add(self, step: Step) -> None:
        before, requests = self.events, self.trace.requests
        self.events = lambda: step.apply(before, requests)
        self.history.append(step.record())
        self.ordered = self.ordered and step.ordered


def _pipeline(trace: Trace, wanted: Transform) -> _Pipeline:
    pipeline = _Pipeline(trace, wanted.from_ns, wanted.until_ns)
    if wanted.only:
        pipeline.add(Keep(wanted.only))
    if wanted.without:
        pipeline.add(Keep(wanted.without, without=True))
    if wanted.sample is not None:
        pipeline.add(Sample(wanted.sample, wanted.sample_by, wanted.seed))
    if wanted.scale:
        check_scale(wanted.scale)
        if wanted.grow == "sessions":
            pipeline.add(CloneSessions(wanted.scale, wanted.seed))
        else:
            pipeline.add(Grow(wanted.scale, wanted.seed, wanted.grow == "repeat"))
    speed = wanted.speed
    if wanted.compress_to_ns is not None:
        speed = _span_ns(pipeline) / wanted.compress_to_ns
    if wanted.peak_per_s is not None:
        factor = wanted.peak_per_s / _busiest_minute_per_s(pipeline, speed * wanted.replayed_speed)
        check_scale(Scale([("", factor)]), "--peak")
        pipeline.add(Grow(Scale([("", factor)]), wanted.seed + 1))
    if speed != 1.0:
        origin_ns = trace.start_ns if wanted.from_ns is None else max(wanted.from_ns, trace.start_ns)
        pipeline.add(Speed(speed, origin_ns))
    return pipeline


def check_scale(scale: Scale, flag: str = "--scale") -> None:
    """Raise UsageError if a factor is not above 0, or is too large; `flag` is where it comes from."""
    for route, factor in scale:
        if not 0 < factor <= FACTOR_MAX:
            name = f"{route}={factor:g}" if route else f"{factor:g}"
            hint = "to keep a part of the requests: --sample 25%; to send them faster: --speed 2"
            if flag == "--peak":
                hint = f"give a peak of at most {FACTOR_MAX:,.0f} times the recording's"
            elif factor > FACTOR_MAX:
                hint = "give a smaller factor"
            raise UsageError(
                f"{flag}: {name}: a factor must be above 0, and at most {FACTOR_MAX:,.0f}", hint=hint
            )


def _busiest_minute_per_s(pipeline: _Pipeline, speed: float) -> float:
    """Return the highest rate of any minute at a speed, per second; the mean rate if the whole is shorter.

    Minutes begin at whole seconds of the result, as in `replay inspect`, or at longer steps in a trace of months.
    InputError if no event is left.
    """
    trace, window_ns = pipeline.trace, max(round(PEAK_WINDOW_NS * speed), 1)
    parts = next(
        (n for n in (60, 12, 4) if (trace.end_ns - trace.start_ns) // window_ns * n < _PEAK_PARTS_MAX), 1
    )
    part_ns = -(-window_ns // parts)
    origin_ns = trace.start_ns // part_ns * part_ns
    rows = np.zeros((trace.end_ns - origin_ns) // part_ns + parts, np.int64)
    first_ns, last_ns = trace.end_ns, trace.start_ns
    for batch in pipeline.events():
        first_ns, last_ns = min(first_ns, int(batch.at_ns.min())), max(last_ns, int(batch.at_ns.max()))
        places = (batch.at_ns - origin_ns) // part_ns
        begin = int(places.min())
        counts = np.bincount(places - begin)
        rows[begin : begin + len(counts)] += counts
    running = np.concatenate([[0], np.cumsum(rows)])
    if not running[-1]:
        raise InputError("nothing is left to scale to a peak")
    most = int((running[parts:] - running[:-parts]).max())
    return most * SECOND_NS * speed / min(window_ns, max(last_ns - first_ns, 1))


def _span_ns(pipeline: _Pipeline) -> int:
    """Return the time from the first to the last event. InputError if there is none, or if all have the same time."""
    first_ns = last_ns = None
    for batch in pipeline.events():
        first_ns = int(batch.at_ns.min()) if first_ns is None else first_ns
        last_ns = int(batch.at_ns.max())
    if first_ns is None or last_ns is None:
        raise InputError(
            "no request is left to compress",
            hint="keep more: a longer window, more routes or a larger sample",
        )
    if first_ns == last_ns:
        raise InputError("the trace is too short to be compressed: all its requests have the same time")
    return last_ns - first_ns


def rows_by_route(trace: Trace, from_ns: int | None, until_ns: int | None) -> list[int]:
    """Count the events of each route of a trace between two times."""
    warm(["workload.scale"])
    routes, table = np.arange(len(trace.requests.routes), dtype=np.int64), trace.requests.addresses()
    counts, found = np.zeros(len(routes) + 1, np.int64), np.empty(kernels.COUNTED_AT_ONCE, np.int64)
    for batch in with_requests(trace.batches(from_ns, until_ns), trace.requests, columns_alone=True):
        kernels.count_classes(batch.request, table, routes, found, counts)
    return [int(count) for count in counts[:-1]]


def rows_by_request(trace: Trace, from_ns: int | None, until_ns: int | None) -> npt.NDArray[np.int64]:
    """Count the events of each request of a trace between two times.

    Unlike routes, requests are not changed by a rewrite.
    """
    counts = np.zeros(trace.manifest.requests, np.int64)
    for batch in trace.batches(from_ns, until_ns):
        np.add.at(counts, batch.request, 1)
    return counts


def rows_in_routes(trace: Trace, rows: npt.NDArray[np.int64]) -> list[int]:
    """Count the events of each route of a trace, from the events of each request."""
    counts, first = np.zeros(len(trace.manifest.routes), np.int64), 0
    for batch in trace.requests.loaded_batches():
        np.add.at(counts, batch.route, rows[first : first + len(batch.route)])
        first += len(batch.route)
    return counts.tolist()


def transform(trace: Trace, out: str | Path, wanted: Transform, *, overwrite: bool = False) -> Trace:
    """Write the transformed trace to `out`, in constant memory.

    Equal seeds give equal traces. UsageError if a rule matches no route or a factor is invalid; InputError if nothing
    is left, or the trace is damaged; OutputError if `out` exists or cannot be written.
    """
    if not trace.rows:
        raise InputError(f"{trace.path} holds no requests: there is nothing to transform")
    warm(["workload.scale"])
    pipeline = _pipeline(trace, wanted)
    rewrite = read_rewrite(wanted.rewrite) if wanted.rewrite else None
    if rewrite is not None:
        pipeline.history.append({"transform": "rewrite", "rules": list(wanted.rewrite)})
    with DerivedTraceWriter(out, trace, pipeline.history, overwrite=overwrite, rewrite=rewrite) as writer:
        if rewrite is not None:
            rewrite.check()
        for batch in _renumbered(pipeline.events()):
            writer.add_batch(batch, in_order=pipeline.ordered)
        if not writer.manifest.rows:
            raise InputError(
                "no request is left", hint="keep more: a longer window, more routes or a larger sample"
            )
    assert writer.trace is not None
    return writer.trace


def _renumbered(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield the same events, whose clients are renumbered in place by first appearance."""
    ids, known = np.full(1024, -1, np.int64), 0
    for batch in batches:
        most = int(batch.client.max()) + 1
        if most > len(ids):
            ids = np.concatenate([ids, np.full(max(most, 2 * len(ids)) - len(ids), -1, np.int64)])
        known = kernels.renumber(batch.client, ids, known)
        yield batch
