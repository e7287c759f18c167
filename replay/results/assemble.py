"""Builds the complete run folder from the lanes' memory.

Runs that were killed go through the same steps as runs that ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from replay._version import __version__
from replay.ledger.accounts import sum_counters, with_rest
from replay.shown import json_shown
from replay.units import SECOND_NS
from replay_native.ledger.lane_metrics import LaneMetrics

from . import hlog, slo, watched
from .business import business_of
from .document import AnswerFigures, RunDocument, Started
from .facts import Facts
from .folder import RunFolder
from .judging import objectives_of, rows_of, status_differs, validity_of
from .lane_figures import address_figures, connection_figures, generator_figures, retry_figures
from .latency_figures import latencies_of
from .measured import OTHER, Measured, from_metrics, tags
from .notes import notes_of
from .route_figures import action_figures, route_figures, session_figures
from .samples import Lookup, collect, iso
from .shares import balanced, shares_of, target_figures, tls_figures
from .traces import seed_of

_AS_STARTED = (
    "run_id", "together", "name", "build", "start", "closed_loop", "target", "recorded_clock", "rows_in_window",
    "max_wait_ns", "scenario",
    "plan", "host",
)  # fmt: skip
"""The fields of started.json that run.json repeats unchanged."""


def assemble(
    folder: RunFolder,
    all_metrics: Sequence[LaneMetrics],
    started: Started,
    facts: Facts,
    lookup: Lookup | None = None,
    finish: Callable[[RunDocument], RunDocument] = lambda document: document,
) -> RunDocument:
    """Write totals.hlog, samples.jsonl and finally run.json; then remove the lanes' memory.

    An agent's folder keeps that memory. `finish` may change the document before it is written. Raise OutputError if a
    file cannot be written.
    """
    names = [route.name for route in started.routes]
    measured = from_metrics(all_metrics, started.routes, started.max_wait_ns)
    length_s = (facts.ended_ns - started.start.monotonic_ns) / SECOND_NS
    folder.write(folder.totals, _totals(measured, started, length_s))
    samples = collect(
        all_metrics,
        [*names, OTHER],
        started.start,
        started.recorded_clock,
        lookup,
        started.rules,
        _trace_seeds(started),
    )
    folder.write(folder.samples, b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples))
    document = finish(describe(folder, all_metrics, started, facts, measured))
    write_document(folder, document)
    folder.settle()
    return document


def _trace_seeds(started: Started) -> dict[str, int]:
    """Return the seed of the trace ids, by route, for routes whose requests have a traceparent.

    OTHER is one of them only if all routes are.
    """
    traced = [route.name for route in started.routes if route.traced]
    if not traced:
        return {}
    every = [OTHER] if len(traced) == len(started.routes) else []
    return dict.fromkeys([*traced, *every], seed_of(started.run_id))


def write_document(folder: RunFolder, document: RunDocument) -> None:
    """Write run.json. Raise OutputError if it cannot be written."""
    folder.write(folder.run, json_shown(msgspec.json.format(msgspec.json.encode(document), indent=2)) + b"\n")


def _totals(measured: Measured, started: Started, length_s: float) -> bytes:
    lines = [hlog.header(started.start.wall_ns, "Totals of the run, one line per tag")]
    for tag in tags(measured, started.closed_loop):
        histogram = measured.totals(tag)
        if histogram is not None:
            lines.append(hlog.line(tag, 0.0, length_s, histogram))
    return b"".join(lines)


def describe(
    folder: RunFolder, all_metrics: Sequence[LaneMetrics], started: Started, facts: Facts, measured: Measured
) -> RunDocument:
    """Return the document of the run.

    If the accounts do not balance, the verdict reports it, and no figure is dropped.
    """
    counters = [metrics.counters for metrics in all_metrics]
    by_name = sum_counters(counters)
    accounts, detail, imbalance = balanced(counters, facts.skipped, facts)
    if facts.agents:
        accounts, detail = with_rest(accounts, detail, facts.unsent_rest, facts.unknown)
    generator = generator_figures(all_metrics, started, facts, by_name, measured)
    shares = shares_of(all_metrics, started, facts, measured)
    validity = validity_of(shares, started, facts, accounts, detail, generator, imbalance)
    differs, validity = status_differs(started, measured, validity)
    rows, actions = rows_of(folder), action_figures(measured, started)
    watches, watched_first = watched.with_shifts(
        facts.watches, rows, [slo.parse(text) for text in started.slo]
    )
    ended_wall_ns = started.start.wall_ns + facts.ended_ns - started.start.monotonic_ns
    return RunDocument(
        replay_version=__version__,
        started_at=iso(started.start.wall_ns),
        ended_at=iso(ended_wall_ns),
        duration_s=round((facts.ended_ns - started.start.monotonic_ns) / SECOND_NS, 6),
        interrupted=facts.ending.how != "whole",
        ending=facts.ending,
        accounts=accounts,
        accounts_detail=detail,
        validity=validity,
        status_differs=differs,
        notes=notes_of(
            started,
            measured,
            by_name,
            killed=facts.ending.how == "killed",
            known=facts.notes,
            names=facts.names,
        ),
        latency=latencies_of(measured, started.closed_loop, facts.kafka),
        routes=route_figures(measured, started),
        actions=actions,
        business=business_of(started, rows, actions),
        source=facts.source,
        agents=facts.agents,
        trace=facts.trace or started.trace,
        generator=generator,
        connections=connection_figures(by_name),
        retries=retry_figures(started, by_name),
        slo=objectives_of(folder, started, measured),
        kafka=next((kafka for kafka in facts.kafka if kafka is not None), None),
        targets=target_figures(shares, started, facts) if len(shares) > 1 else [],
        addresses=address_figures(all_metrics),
        names=facts.names,
        tls=next((tls for share in shares if (tls := tls_figures(share)) is not None), None),
        answers=_with_routes(facts.answers, started),
        sessions=session_figures(all_metrics, started, by_name, measured),
        watched=watched.values_of(rows),
        watches=watches,
        watched_first=watched_first,
        **{name: getattr(started, name) for name in _AS_STARTED},
    )


def _with_routes(answers: AnswerFigures | None, started: Started) -> AnswerFigures | None:
    """Return the figures of kept responses with the routes in the lanes' numbering; None if there are none."""
    if answers is None:
        return None
    return msgspec.structs.replace(answers, routes=[*(route.name for route in started.routes), OTHER])
