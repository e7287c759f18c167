"""Generates a trace from a recipe in constant memory: arrivals under a rate curve, and their requests or sessions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import InputError, LimitError, UsageError
from replay.settings.kinds import setting_text
from replay.trace import Trace, TraceWriter
from replay_native.ground.jit import warm
from replay_native.workload import arrivals, mixes

from .catalogue import (
    Catalogue,
    alias_of,
    of_rules,
    of_trace,
)
from .curves import (
    RELATIVE_NS,
    RateCurve,
    constant,
    points,
    ramp,
    read_curve,
    shape,
    steps,
)
from .mmpp2 import fit
from .recipe import Curve, Recipe, RequestRule

BATCH_ROWS = 1 << 20
"""Arrivals generated at a time; without sessions, they fill one events file."""

REQUESTS_MAX = 20e9
"""More requests than this are assumed to be a mistake, because their trace would take 700 GB."""

PROCESSES = {"even": arrivals.EVEN, "poisson": arrivals.POISSON, "gamma": arrivals.GAMMA}
START = "2026-01-05T00:00:00+00:00"
STAMP_NS_MAX = units.datetime_to_ns(dt.datetime(2262, 1, 1, tzinfo=dt.UTC))
"""Traces must end before this time, because timestamps are nanoseconds in int64."""

NO_CHAIN = np.array([1.0, 1.0, 0.0, 0.0])

Int64s = npt.NDArray[np.int64]


class Arrivals:
    """An arrival process under a rate curve.

    Iterating yields its arrivals in order, in batches of up to `rows`, in nanoseconds. The curve begins at `start_ns`.
    """

    def __init__(
        self, curve: RateCurve, process: str, *, cv: float = 1.0, chain: npt.NDArray[np.float64] = NO_CHAIN,
        seed: int = 1, start_ns: int = 0, rows: int = BATCH_ROWS,
    ) -> None:  # fmt: skip
        warm(["workload.arrivals"])
        self.curve = curve
        self._process, self._shape, self._chain = PROCESSES[process], 1.0 / cv**2, chain
        self._seed, self._start_ns, self._rows = seed & (2**64 - 1), start_ns, rows

    @property
    def end_ns(self) -> int:
        """The time at which the curve ends."""
        return self._start_ns + self.curve.length_ns

    def __iter__(self) -> Iterator[Int64s]:
        words, reals = np.zeros(arrivals.STATE_WORDS, np.int64), np.zeros(arrivals.STATE_REALS)
        process = arrivals.Process(
            self.curve.edges_ns, self.curve.rates, self._process, self._shape, self._chain, self._seed
        )
        while True:
            at_ns = np.empty(self._rows, np.int64)
            count = arrivals.arrive(process, self._start_ns, words, reals, at_ns)
            if count:
                yield at_ns[:count]
            if count < self._rows:
                return


def curve_of(recipe: Recipe) -> tuple[RateCurve, int | None]:
    """Return the rate curve of a recipe, and the recorded time at which it begins, if it has one.

    UsageError if the rate or the duration is missing or invalid, or if [curve] contradicts itself; InputError if a
    file is invalid.
    """
    length_ns = None if recipe.duration_ns is None else int(recipe.duration_ns)
    if length_ns == 0:
        raise UsageError("duration: it must be above 0", hint="give -d 60s")
    given, mean = recipe.curve, recipe.rate_per_s
    if mean == units.MAX_RATE:
        raise UsageError("rate: max is not a rate of arrivals", hint="write 500/s")
    if given is not None:
        found, start_ns = _drawn(given, length_ns)
        return (found if mean is None else found.times(mean / found.mean_per_s)), start_ns
    if mean is None and recipe.bursts_of is None:
        raise UsageError("no rate", hint="give a rate, a curve, or a trace with bursts to imitate")
    if recipe.shape is not None:
        if mean is None:
            raise UsageError("shape: no rate", hint="give its mean rate")
        return shape(recipe.shape, float(mean), length_ns), None
    if length_ns is None:
        raise UsageError("no duration", hint="give -d 60s")
    return constant(1.0 if mean is None else float(mean), length_ns), None


def _drawn(given: Curve, length_ns: int | None) -> tuple[RateCurve, int | None]:
    """Return the curve that a [curve] table describes, and the recorded time at which it begins, if it has one.

    UsageError if the table is incomplete or contradicts itself or the duration; InputError if its file is invalid.
    """
    kinds = [
        given.ramp is not None,
        bool(given.steps),
        bool(given.rates or given.times),
        given.file is not None,
    ]
    if sum(kinds) != 1:
        raise UsageError("curve: give exactly one of ramp, steps, times with rates, or file")
    if given.file is not None:
        recorded = read_curve(Path(given.file))
        from_ns, until_ns = recorded.start_ns, recorded.start_ns + recorded.curve.length_ns
        if given.from_ is not None:
            from_ns = units.parse_moment(given.from_).resolve_ns(from_ns, until_ns, units.parse_zone("UTC"))
        if given.until is not None:
            until_ns = units.parse_moment(given.until).resolve_ns(from_ns, until_ns, units.parse_zone("UTC"))
        if length_ns is not None:
            _refuse_longer(length_ns, min(until_ns, recorded.start_ns + recorded.curve.length_ns) - from_ns)
            until_ns = from_ns + length_ns
        curve = recorded.curve.part(from_ns - recorded.start_ns, until_ns - recorded.start_ns)
        begin_ns = max(from_ns, recorded.start_ns)
        return curve, begin_ns if recorded.start_ns >= RELATIVE_NS else None
    if given.times or given.rates:
        curve = points([int(time) for time in given.times], given.rates, "curve")
        if length_ns is None:
            return curve, None
        _refuse_longer(length_ns, curve.length_ns)
        return curve.part(0, length_ns), None
    if length_ns is None:
        raise UsageError("no duration", hint="give -d 60s")
    if given.steps:
        if not all(0 <= rate < 1e9 for rate in given.steps):
            raise UsageError("curve.steps: a rate must be at least 0, and below 1e9 per second")
        return steps(given.steps, length_ns), None
    assert given.ramp is not None
    if units.MAX_RATE in given.ramp:
        raise UsageError("curve.ramp: max is not a rate of arrivals", hint="write 500/s")
    return ramp(float(given.ramp[0]), float(given.ramp[1]), length_ns), None


def _refuse_longer(length_ns: int, curve_ns: int) -> None:
    """Raise UsageError if a curve with its own length ends before the duration."""
    if length_ns > curve_ns > 0:
        raise UsageError(
            f"duration: {units.format_duration(length_ns)} is longer than the curve, which ends after"
            f" {units.format_duration(curve_ns)}",
            hint="leave the duration out, or give a longer curve",
        )


def _arrivals(recipe: Recipe) -> Arrivals:
    """Return the arrival process of a recipe.

    UsageError if nothing would arrive, or if the trace would not lie between 1970 and 2261; LimitError if more than
    REQUESTS_MAX requests are expected. Errors of `curve_of` and `fit` are passed on.
    """
    curve, recorded_ns = curve_of(recipe)
    chain = NO_CHAIN
    if recipe.bursts_of is not None:
        fitted = fit(Trace.open(recipe.bursts_of))
        chain = fitted.modulation()
        if recipe.rate_per_s is None and recipe.curve is None:
            curve = curve.times(fitted.mean_per_s)
    expected = curve.requests * max(sum(len(kind.step) for kind in recipe.session), 1)
    if not expected > 0:
        raise UsageError("the rate is always 0, so nothing arrives")
    if expected > REQUESTS_MAX:
        raise LimitError(
            f"about {expected:.3g} requests are more than the limit of {REQUESTS_MAX:.0e}",
            hint="lower the rate or the duration",
        )
    start_ns = _moment_ns(START) if recorded_ns is None else recorded_ns
    if recipe.start is not None:
        start_ns = _moment_ns(recipe.start)
    if not 0 <= start_ns <= STAMP_NS_MAX - curve.length_ns:
        raise UsageError(
            "start: a trace must lie between 1970 and 2261", hint="give another --start, or a shorter -d"
        )
    return Arrivals(curve, recipe.process, cv=recipe.cv, chain=chain, seed=recipe.seed, start_ns=start_ns)


def _moment_ns(text: str) -> int:
    return units.parse_moment(text).resolve_ns(0, 0, units.parse_zone("UTC"))


def generate(recipe: Recipe, out: str | Path, *, overwrite: bool = False) -> Trace:
    """Write the trace of a recipe to `out`. Equal recipes give equal traces.

    UsageError if the recipe is incomplete or contradicts itself; InputError if one of its files is invalid, or
    nothing arrives; LimitError beyond 20e9 requests; OutputError if `out` exists or cannot be written.
    """
    warm(["workload.arrivals", "workload.mixes"])
    made = _arrivals(recipe)
    with TraceWriter(out, overwrite=overwrite) as writer:
        writer.manifest.importer = "generate"
        writer.manifest.time_zone = _zone_text(recipe.start or START)
        writer.manifest.options = msgspec.to_builtins(recipe, enc_hook=setting_text)
        if recipe.session:
            _write_sessions(writer, recipe, made)
        else:
            _write_requests(writer, recipe, made)
        if not writer.manifest.rows:
            raise InputError("nothing arrived", hint="raise the rate or the duration, or give another --seed")
    assert writer.trace is not None
    return writer.trace


def _zone_text(moment: str) -> str:
    """Return the zone of an ISO 8601 time, such as `+01:00`; UTC if it has none. UsageError for another text."""
    try:
        offset = dt.datetime.fromisoformat(moment).strftime("%z")
    except ValueError:
        raise UsageError(
            f"start: {moment!r} is not a date and time", hint="write 2026-01-05T18:00:00+01:00"
        ) from None
    return f"{offset[:3]}:{offset[3:5]}" if offset not in ("", "+0000") else "UTC"


def _write_requests(writer: TraceWriter, recipe: Recipe, made: Arrivals) -> None:
    """Turn each arrival into a request that is drawn by weight, from a client that is drawn uniformly."""
    if recipe.mix_of is not None:
        catalogue = of_trace(writer, Trace.open(recipe.mix_of))
    else:
        rules = recipe.request or (RequestRule(path="/"),)
        catalogue, _ = of_rules(writer, rules, recipe.seed)
    table = alias_of(catalogue.weights, "request")
    answers = _Answers(catalogue)
    first = 0
    for at_ns in made:
        request, client = np.empty(len(at_ns), np.uint32), np.empty(len(at_ns), np.uint32)
        mixes.ask(
            table,
            catalogue.ids,
            recipe.clients,
            np.uint64(recipe.seed),
            first,
            request,
            client,
        )
        first += len(at_ns)
        writer.add_events(at_ns, request, client, *answers.of(request), in_order=True)


class _Answers:
    """The recorded responses of requests, by the writer's ids.

    A column is None if it is unknown for every request.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._columns: list[Int64s | None] = []
        for column in (catalogue.status, catalogue.took_ns, catalogue.bytes):
            by_id = np.full(int(catalogue.ids.max()) + 1, -1, np.int64)
            by_id[catalogue.ids] = column
            self._columns.append(by_id if (column >= 0).any() else None)

    def of(self, request: npt.NDArray[np.uint32]) -> list[Int64s | None]:
        """Return the columns status, took_ns and bytes for these requests."""
        return [None if column is None else column[request] for column in self._columns]


def _write_sessions(writer: TraceWriter, recipe: Recipe, made: Arrivals) -> None:
    """Turn each arrival into a session: a new client that makes the requests of a session kind, drawn by weight."""
    rules = [rule for kind in recipe.session for rule in kind.step]
    if any(rule.zipf for rule in rules):
        raise UsageError("session.step: all steps of a session share its id, so zipf cannot be used")
    catalogue, begins = of_rules(writer, rules, recipe.seed)
    table = alias_of(np.array([kind.weight for kind in recipe.session], np.float64), "session")
    kinds = np.cumsum([0, *(len(kind.step) for kind in recipe.session)])
    pauses = np.array([float(rule.pause_ns) for rule in rules])
    answers = _Answers(catalogue)
    at_ns, step = np.empty(BATCH_ROWS, np.int64), np.empty(BATCH_ROWS, np.int64)
    request, client = np.empty(BATCH_ROWS, np.uint32), np.empty(BATCH_ROWS, np.uint32)
    visits = mixes.Visits(
        table, kinds, begins[:-1].copy(), np.diff(begins), pauses, catalogue.ids, recipe.seed & (2**64 - 1)
    )
    out, first = mixes.Generated(at_ns, request, client, step), 0
    for starts_ns in made:
        begin = 0
        while begin < len(starts_ns):
            count, begin = mixes.visit(starts_ns, begin, visits, first, made.end_ns, out)
            writer.add_events(at_ns[:count], request[:count], client[:count], *answers.of(request[:count]))
        first += len(starts_ns)
