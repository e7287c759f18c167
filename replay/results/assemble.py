"""From the lanes' memory to the whole run folder: the one path, of ended and killed runs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from replay._version import __version__
from replay.errors import InputError
from replay.ledger.accounts import (
    AT,
    OK,
    Accounts,
    AccountsDetail,
    Unbalanced,
    balance,
    lanes_cpu_ns,
    sum_counters,
)
from replay.ledger.host import RunDelay
from replay.ledger.statuses import (
    StatusFigures,
    figures_of,
    reason_of,
    said_first,
)
from replay.ledger.validity import (
    Figures,
    Quantiles,
    Validity,
    ValidityLimits,
    judge,
    worst_of,
)
from replay.shown import json_shown
from replay.units import SECOND_NS
from replay_native.feed.addresses import (
    REMOVED,
    UNUSED,
    AddressCounts,
    unpack_address,
)
from replay_native.ledger.lane_metrics import LaneMetrics

from . import hlog, slo
from .document import (
    AddressFigures,
    Connections,
    Delays,
    Ending,
    Generator,
    KafkaFigures,
    Latencies,
    Latency,
    NameFigures,
    Note,
    Recorded,
    Retries,
    RouteFigures,
    RouteStart,
    RuleFigures,
    RunDocument,
    SessionFigures,
    SloOutcome,
    Started,
    TargetFigures,
    TargetStart,
    TlsFigures,
)
from .folder import RunFolder, read_rows
from .measured import (
    CONSUMED,
    OTHER,
    Measured,
    from_metrics,
    tags,
)
from .notes import notes_of
from .samples import Lookup, collect, iso
from .timeline import Second
from .windows import Window, windows_of

NOTHING = msgspec.convert({name: 0 for name in Latency.__struct_fields__ if name != "at_least"}, Latency)
"""A latency that nothing was measured of."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the end of a run adds to what was known at its start. `ended_ns` is CLOCK_MONOTONIC."""

    ending: Ending
    ended_ns: int
    control_cpu_s: float = 0.0
    skipped: dict[str, int] = {}
    lanes_lost: int = 0
    throttled_share: float | None = None
    steal_share: float | None = None
    run_delay: RunDelay | None = None
    peak_rss_bytes: int | None = None
    kafka: list[KafkaFigures | None] = []
    notes: list[Note] = []
    names: list[NameFigures] = []


def assemble(
    folder: RunFolder,
    all_metrics: Sequence[LaneMetrics],
    started: Started,
    facts: Facts,
    lookup: Lookup | None = None,
) -> RunDocument:
    """Write totals.hlog, samples.jsonl and, last, run.json; then remove the lanes' memory. OutputError where
    there is no room.
    """
    names = [route.name for route in started.routes]
    measured = from_metrics(all_metrics, started.routes, started.max_wait_ns)
    length_s = (facts.ended_ns - started.start.monotonic_ns) / SECOND_NS
    folder.write(folder.totals, _totals(measured, started, length_s))
    samples = collect(
        all_metrics, [*names, OTHER], started.start, started.recorded_clock, lookup, started.rules
    )
    folder.write(folder.samples, b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples))
    document = describe(folder, all_metrics, started, facts, measured)
    folder.write(folder.run, json_shown(msgspec.json.format(msgspec.json.encode(document), indent=2)) + b"\n")
    folder.settle()
    return document


def _totals(measured: Measured, started: Started, length_s: float) -> bytes:
    lines = [hlog.header(started.start.wall_ns, "Totals of the run, one line a tag")]
    for tag in tags(measured, started.closed_loop):
        histogram = measured.totals(tag)
        if histogram is not None:
            lines.append(hlog.line(tag, 0.0, length_s, histogram))
    return b"".join(lines)


def describe(
    folder: RunFolder, all_metrics: Sequence[LaneMetrics], started: Started, facts: Facts, measured: Measured
) -> RunDocument:
    """The document of the run. Nothing is lost where the accounts do not balance: the verdict says so."""
    counters = [metrics.counters for metrics in all_metrics]
    by_name = sum_counters(counters)
    accounts, detail, imbalance = _balanced(counters, facts.skipped, facts)
    generator = _generator(all_metrics, started, facts, by_name, measured)
    shares = _shares(all_metrics, started, facts, measured)
    validity = _validity(shares, started, facts, accounts, detail, generator, imbalance)
    differs, validity = _status_differs(started, measured, validity)
    ended_wall_ns = started.start.wall_ns + facts.ended_ns - started.start.monotonic_ns
    return RunDocument(
        replay_version=__version__,
        run_id=started.run_id,
        started_at=iso(started.start.wall_ns),
        ended_at=iso(ended_wall_ns),
        start=started.start,
        duration_s=round((facts.ended_ns - started.start.monotonic_ns) / SECOND_NS, 6),
        interrupted=facts.ending.how != "whole",
        ending=facts.ending,
        closed_loop=started.closed_loop,
        target=started.target,
        trace=started.trace,
        recorded_clock=started.recorded_clock,
        rows_in_window=started.rows_in_window,
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
        latency=_latencies(measured, started.closed_loop, facts.kafka),
        routes=_routes(measured, started),
        actions=_actions(measured, started),
        generator=generator,
        connections=_connections(by_name),
        retries=_retries(started, by_name),
        slo=_objectives(folder, started, measured),
        kafka=next((kafka for kafka in facts.kafka if kafka is not None), None),
        targets=_targets(shares, started, facts) if len(shares) > 1 else [],
        addresses=_addresses(all_metrics),
        names=facts.names,
        tls=next((tls for share in shares if (tls := _tls(share)) is not None), None),
        sessions=_sessions(all_metrics, started, by_name, measured),
        max_wait_ns=started.max_wait_ns,
        scenario=started.scenario,
        plan=started.plan,
        host=started.host,
    )


def _balanced(
    counters: Sequence[np.ndarray], skipped: dict[str, int], facts: Facts
) -> tuple[Accounts, AccountsDetail, str]:
    """Accounts of these lanes; where they do not balance, what was counted, and why that cannot be."""
    try:
        return *balance(counters, skipped=skipped, killed=facts.ending.how == "killed"), ""
    except Unbalanced as error:
        by_name = sum_counters(counters)
        names = ("planned", "sent", "ok", "error", "timeout", "in_flight")
        return (
            Accounts(**{name: by_name[name] for name in names}),
            AccountsDetail(skipped=skipped),
            str(error),
        )


def _status_differs(
    started: Started, measured: Measured, validity: Validity
) -> tuple[StatusFigures | None, Validity]:
    """Responses against the recording, and the verdict with that finding. An objective of all requests replaces the rule:
    the user has said what is allowed.
    """
    replaced = any(slo.replaces_status_rule(slo.parse(text)) for text in started.slo)
    figures = figures_of(measured.statuses, replaced=replaced)
    if figures is None or replaced:
        return figures, validity
    recorded: Counter[str] = Counter()
    now: Counter[str] = Counter()
    for route in started.routes:
        recorded.update(route.recorded.statuses if route.recorded else {})
    for outcomes in measured.outcomes.values():
        now.update({name: count for name, count in outcomes.items() if name in OK})
    reason = reason_of(measured.statuses, recorded, now)
    return figures, validity if reason is None else said_first(validity, reason)


def _objectives(folder: RunFolder, started: Started, measured: Measured) -> list[SloOutcome]:
    """Those by window are of the logs. A log that was damaged has no windows, so that what asks for them fails."""
    objectives = [slo.parse(text) for text in started.slo]
    rows: list[Second] = []
    if any(objective.window_ns for objective in objectives):
        with contextlib.suppress(InputError):
            rows = read_rows(folder.timeline, Second)
    per_route = "service" if started.closed_loop else "response"

    def windows(objective: slo.Slo) -> Iterator[Window]:
        kind = per_route if objective.percentile is None else objective.metric
        routes = measured.members(objective.route) if objective.route else None
        with contextlib.suppress(InputError):
            yield from windows_of(folder, rows, kind, routes, objective.window_ns or 0, started.max_wait_ns)

    return slo.evaluate(objectives, measured, windows)


def _latencies(measured: Measured, closed_loop: bool, kafka: Sequence[KafkaFigures | None]) -> Latencies:
    names = {"service": "service", "first_byte": "first_byte"}
    if not closed_loop:
        names |= {"response": "response", "response_ok": "response.ok", "lateness": "lateness"}
        names |= {"wait": "wait", "wait_queue": "wait.queue", "wait_connect": "wait.connect"}
    handshakes = {f"handshake_{kind}": f"handshake.{kind}" for kind in ("full", "resumed")}
    names |= {name: tag for name, tag in handshakes.items() if measured.latency(tag) is not None}
    found = {name: measured.latency(kind) or NOTHING for name, kind in names.items()}
    if (order := measured.latency("wait.order")) is not None:
        found["wait_order"] = order
    for kind in CONSUMED:
        if (latency := measured.latency(kind)) is not None:
            consumed = [each.consumed[kind] for each in kafka if each is not None and kind in each.consumed]
            bounds = [each.at_least_ns for each in consumed if each.at_least_ns is not None]
            found[kind] = _bounded(latency, min(bounds, default=None))
    return Latencies(**found)


def _bounded(latency: Latency, from_ns: int | None) -> Latency:
    """A latency whose values from here on are lower bounds: of what had not come by the end."""
    if from_ns is None:
        return latency
    names = [name for name in latency.__struct_fields__ if name.startswith("p") or name == "max_ns"]
    bounds = [name for name in names if getattr(latency, name) >= from_ns or name in latency.at_least]
    return msgspec.structs.replace(latency, at_least=["mean_ns", *bounds])


def _routes(measured: Measured, started: Started) -> list[RouteFigures]:
    """Routes that anything was sent to, the biggest first."""
    known = {route.name: route for route in started.routes}
    found = []
    for name in measured.outcomes:
        route = known.get(name, RouteStart(name))
        found.append(_figures(measured, started, name, route.recorded, route.action))
    return sorted(found, key=lambda figures: (-figures.count, figures.route))


def _actions(measured: Measured, started: Started) -> list[RouteFigures]:
    """Business actions that anything was sent for, the biggest first. Recorded percentiles of several routes do not
    add up.
    """
    recorded = {route.name: route.recorded for route in started.routes}
    found = []
    for action, routes in measured.actions.items():
        each = [known for known in (recorded.get(name) for name in routes) if known is not None]
        statuses: Counter[str] = Counter()
        for one in each:
            statuses.update(one.statuses)
        merged = Recorded(count=sum(one.count for one in each), statuses=dict(statuses)) if each else None
        found.append(_figures(measured, started, action, each[0] if len(each) == 1 else merged, action))
    return sorted((f for f in found if f.count), key=lambda figures: (-figures.count, figures.route))


def _figures(
    measured: Measured, started: Started, name: str, recorded: Recorded | None, action: str
) -> RouteFigures:
    """The figures of one route or action."""
    outcomes: Counter[str] = Counter()
    for member in measured.members(name):
        outcomes.update(measured.outcomes.get(member, {}))
    counted = [measured.checked.get(member, (0, 0)) for member in measured.members(name)]
    total = sum(sum(outcomes.values()) for outcomes in measured.outcomes.values())
    return RouteFigures(
        route=name,
        count=outcomes.total(),
        share=round(outcomes.total() / max(total, 1), 6),
        outcomes=dict(outcomes),
        response=None if started.closed_loop else measured.latency("response", name),
        service=measured.latency("service", name),
        recorded=recorded,
        action=action,
        checked=sum(checked for checked, _ in counted),
        mismatches=sum(mismatches for _, mismatches in counted),
        worse=measured.status_count(name).differing,
    )


def _sessions(
    all_metrics: Sequence[LaneMetrics], started: Started, by_name: dict[str, int], measured: Measured
) -> SessionFigures | None:
    """What captures, cookies and checks came to; None where there were none."""
    scenario = started.scenario
    if not started.rules and not scenario.get("cookies"):
        return None
    counts = [
        sum(int(metrics.rule_counts[rule, which]) for metrics in all_metrics)
        for rule in range(len(started.rules))
        for which in (0, 1)
    ]
    return SessionFigures(
        rules=[
            RuleFigures(
                rule=name,
                good=counts[2 * number],
                missed=counts[2 * number + 1],
                refused=sum(int(metrics.rule_refused[number]) for metrics in all_metrics),
            )
            for number, name in enumerate(started.rules)
        ],
        checked=sum(checked for checked, _ in measured.checked.values()),
        mismatches=sum(mismatches for _, mismatches in measured.checked.values()),
        answers_cut=by_name["answers_cut"],
        cookies_cut=by_name["cookies_cut"],
    )


def _generator(
    all_metrics: Sequence[LaneMetrics],
    started: Started,
    facts: Facts,
    by_name: dict[str, int],
    measured: Measured,
) -> Generator:
    lanes_s = lanes_cpu_ns([metrics.counters for metrics in all_metrics]) / SECOND_NS
    return Generator(
        engine=started.engine,
        lanes=len(all_metrics),
        cpu_s=round(lanes_s + facts.control_cpu_s, 6),
        lanes_cpu_s=round(lanes_s, 6),
        control_cpu_s=round(facts.control_cpu_s, 6),
        busy_share=round(max(map(_busy_share, all_metrics), default=0.0), 4),
        underruns=by_name["underruns"],
        throttled_share=facts.throttled_share,
        steal_share=facts.steal_share,
        run_delay=facts.run_delay,
        delays=_delays(all_metrics, measured, by_name),
        peak_rss_bytes=facts.peak_rss_bytes,
    )


def _delays(all_metrics: Sequence[LaneMetrics], measured: Measured, by_name: dict[str, int]) -> Delays:
    """What the lanes delayed; without what only an engine that keeps count of it can know."""
    sums = {name: by_name[name] for name in Delays.__struct_fields__ if name in by_name}
    sums["gap_max_ns"] = max(int(metrics.counters[AT["gap_max_ns"]]) for metrics in all_metrics)
    return Delays(
        response_net=measured.latency("response.net"),
        service_net=measured.latency("service.net"),
        response_arrived=measured.latency("response.arrived"),
        **sums,  # type: ignore[arg-type]
    )


def _lost_share(all_metrics: Sequence[LaneMetrics]) -> float:
    """Share of the time, first due to last done, that the worst lane lost."""
    shares = [0.0]
    for metrics in all_metrics:
        first_ns, last_ns, lost_ns = (
            int(metrics.counters[AT[name]]) for name in ("first_due_ns", "last_done_ns", "lost_ns")
        )
        if 0 < first_ns < last_ns:
            shares.append(min(lost_ns / (last_ns - first_ns), 1.0))
    return max(shares)


def _busy_share(metrics: LaneMetrics) -> float:
    """Share of the lane's time, first due to last done, in which it had something to do. Spinning for a due
    time is idle.
    """
    first_ns, last_ns, idle_ns = (
        int(metrics.counters[AT[name]]) for name in ("first_due_ns", "last_done_ns", "idle_ns")
    )
    if first_ns <= 0 or last_ns <= first_ns:
        return 0.0
    return min(max(1.0 - idle_ns / (last_ns - first_ns), 0.0), 1.0)


def _retries(started: Started, by_name: dict[str, int]) -> Retries | None:
    """What trying again came to; None where the scenario does not."""
    if started.scenario.get("retry", {}).get("attempts", 1) == 1:
        return None
    return Retries(
        at_target=by_name["attempts"],
        amplification=round(by_name["attempts"] / max(by_name["sent"], 1), 4),
        retries=by_name["retries"],
        retried=by_name["retried"],
        denied=by_name["retries_denied"],
    )


def _connections(by_name: dict[str, int]) -> Connections:
    return Connections(
        opened=by_name["connects"],
        failed=by_name["connects_failed"],
        **{
            name: by_name[name]
            for name in (
                "closed_by_target",
                "open_max",
                "waiting_max",
                "cap_bound",
                "idle_closed",
                "bytes_sent",
                "bytes_received",
            )
        },
    )


class _Share(NamedTuple):
    """What one target has of a run."""

    start: TargetStart
    all_metrics: Sequence[LaneMetrics]
    measured: Measured
    kafka: KafkaFigures | None


def _shares(
    all_metrics: Sequence[LaneMetrics], started: Started, facts: Facts, measured: Measured
) -> list[_Share]:
    starts = started.targets or [TargetStart(target=started.target, lanes=len(all_metrics))]
    figures = [*facts.kafka, *[None] * len(starts)]
    shares, first = [], 0
    for start, kafka in zip(starts, figures, strict=False):
        own = all_metrics[first : first + start.lanes]
        first += start.lanes
        of = measured if len(starts) == 1 else from_metrics(own, started.routes, started.max_wait_ns)
        shares.append(_Share(start, own, of, kafka))
    return shares


def _targets(shares: Sequence[_Share], started: Started, facts: Facts) -> list[TargetFigures]:
    """The figures of each target. Where its accounts do not balance those of the run do not, and say so."""
    return [
        TargetFigures(
            target=share.start.target,
            engine=share.start.engine,
            lanes=share.start.lanes,
            accounts=_balanced(
                [metrics.counters for metrics in share.all_metrics], share.start.skipped, facts
            )[0],
            latency=_latencies(share.measured, started.closed_loop, [share.kafka]),
            kafka=share.kafka,
            tls=_tls(share),
        )
        for share in shares
    ]


def _addresses(all_metrics: Sequence[LaneMetrics]) -> list[AddressFigures]:
    """What was connected to, in the order in which it was known; counts are sums over the lanes."""
    counts: dict[tuple[str, int], dict[str, int]] = {}
    removed: dict[tuple[str, int], bool] = {}
    for metrics in all_metrics:
        for row in range(int((metrics.address_states != UNUSED).sum())):
            place = unpack_address(metrics.addresses[row].tobytes())
            sums = counts.setdefault(place, dict.fromkeys(AddressCounts._fields, 0))
            for name, count in zip(AddressCounts._fields, metrics.address_counts[row].tolist(), strict=True):
                sums[name] += count
            removed[place] = bool(metrics.address_states[row] == REMOVED)
    return [
        AddressFigures(address=host, port=port, removed=removed[host, port], **sums)
        for (host, port), sums in counts.items()
    ]


def _tls(share: _Share) -> TlsFigures | None:
    if share.start.tls is None:
        return None
    by_name = sum_counters([metrics.counters for metrics in share.all_metrics])
    counts = {name: by_name[name] for name in TlsFigures.__struct_fields__ if name.startswith("handshakes_")}
    return TlsFigures(peer=share.start.tls, **counts)


def _validity(
    shares: Sequence[_Share],
    started: Started,
    facts: Facts,
    accounts: Accounts,
    detail: AccountsDetail,
    generator: Generator,
    imbalance: str,
) -> Validity:
    """Each target is judged by its own latencies, and the worst finding counts."""
    judged = []
    for share in shares:
        measured = share.measured
        figures = Figures(
            planned=sum(int(metrics.counters[AT["planned"]]) for metrics in share.all_metrics),
            sent=accounts.sent,
            response=None if started.closed_loop else _quantiles(measured, "response"),
            lateness=None if started.closed_loop else _quantiles(measured, "lateness"),
            generator_errors=detail.error.get("generator", 0),
            underruns=generator.underruns,
            throttled_share=facts.throttled_share,
            steal_share=facts.steal_share,
            run_delay=facts.run_delay,
            service=_quantiles(measured, "service"),
            response_net=None if started.closed_loop else _quantiles(measured, "response.net"),
            service_net=_quantiles(measured, "service.net"),
            response_arrived=None if started.closed_loop else _quantiles(measured, "response.arrived"),
            unsent_own=sum(int(metrics.counters[AT["unsent_own"]]) for metrics in share.all_metrics),
            lost_share=_lost_share(share.all_metrics),
            gap_max_ns=max(int(metrics.counters[AT["gap_max_ns"]]) for metrics in share.all_metrics),
            busy_share=generator.busy_share,
            lanes_lost=facts.lanes_lost,
            imbalance=imbalance,
        )
        judged.append((share.start.target, judge(figures, _allowing(started.limits, share.start.tick_ns))))
    return worst_of(judged)


def _allowing(limits: ValidityLimits, tick_ns: int) -> ValidityLimits:
    """The thresholds with lateness by design above them."""
    floors = [
        name for name in limits.__struct_fields__ if name.startswith("lateness_") and name.endswith("_ns")
    ]
    return msgspec.structs.replace(limits, **{name: getattr(limits, name) + tick_ns for name in floors})


def _quantiles(measured: Measured, kind: str) -> Quantiles | None:
    values = measured.percentiles(kind, (50.0, 90.0, 99.0))
    histogram = measured.histogram(kind)
    if values is None or histogram is None:
        return None
    return Quantiles(count=histogram.count, p50_ns=values[0].ns, p90_ns=values[1].ns, p99_ns=values[2].ns)
