"""The sections of the live page, made by the page builder and the charts of the reports."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from typing import Any

from replay.ledger.catalog import FAILED, UNSENT_REASONS
from replay.ledger.histogram import Histogram
from replay.report import figures
from replay.report.charts import BLUE, GREEN, ORANGE, PURPLE, RED, Chart
from replay.report.facts import reasons
from replay.report.html import (
    BAD,
    GOOD,
    Figure,
    barred,
    cards,
    drawn,
    facts_table,
    folded,
    headline,
    html_table,
    named,
    toned,
)
from replay.report.run_page import ABOVE_CHARTS, document_sections
from replay.report.watched import charts_of
from replay.results.document import RecordedClock
from replay.results.hlog import tag_of
from replay.results.started import actions_of
from replay.results.timeline import Second
from replay.units import SECOND_NS, format_duration, format_latency, format_moment, format_rate, format_share

from .view import LATENCIES_SHOWN, View

ROUTES_SHOWN, ACTIONS_SHOWN = 50, 12
PERCENTILES = (50.0, 99.0, 99.9)
TITLES = {"response": "Response", "service": "Service", "lateness": "Generator lag"}
SECTIONS = (
    "headline", "cards", "objectives", "runs", "heat-response", "heat-service", "watched", "rates", "statuses", "failed",
    "heat-lateness", "lag", "connections", "retries", "consumer", "percentiles", "latencies", "outcomes", "actions",
    "routes", "route-heat", "events", "plan", "report",
)  # fmt: skip
"""Every section of the page, in order."""


def sections_of(view: View) -> dict[str, str]:
    """Return all sections. After the end of a run, those of the report replace the figures so far."""
    made = {**figure_sections(view), **chart_sections(view), "plan": _plan(view), "report": ""}
    if view.document is None:
        return made
    own = document_sections(view.document)
    made |= dict(zip(("headline", "cards", "objectives"), own[:ABOVE_CHARTS], strict=True))
    made |= dict.fromkeys(("latencies", "outcomes", "actions", "routes"), "")
    return made | {"report": "".join(own[ABOVE_CHARTS:])}


def figure_sections(view: View) -> dict[str, str]:
    """Return the sections with figures and tables of a run in progress."""
    return {
        "headline": _headline(view),
        "cards": _cards(view),
        "objectives": _objectives(view),
        "runs": _runs(view),
        "latencies": _latencies(view),
        "outcomes": _outcomes(view),
        "actions": _actions(view),
        "routes": _routes(view),
        "events": _events(view),
    }


def waiting_sections(words: str) -> dict[str, str]:
    """Return the only section before the first run: a headline with what the page waits for."""
    return {"headline": headline("WAITING", words)}


def _headline(view: View) -> str:
    if view.last is None:
        due = format_moment(view.started.start.wall_ns // SECOND_NS * SECOND_NS)
        return headline("STARTING", f"the first request is due at {due}", [view.started.target])
    sums, planned = view.so_far.sums, view.started.plan.get("rows")
    of = f" of {planned:,}" if isinstance(planned, int) and len(view.started.targets) < 2 else ""
    took = format_duration(round(view.so_far.elapsed_s) * SECOND_NS)
    sentence = f"{sums['sent']:,}{of} requests sent in {took}"
    missed = [f"{each.text} is in breach: {each.now}" for each in view.standings if each.met_now is False]
    number = f"run {view.number} of this command" if view.number > 1 else ""
    return headline("RUNNING", sentence, [number, view.started.target], failed="; ".join(missed))


def _cards(view: View) -> str:
    last, so_far = view.last, view.so_far
    if last is None:
        return ""
    failed = sum(so_far.outcomes[name] for name in FAILED)
    ended = so_far.outcomes.total()
    lag = sum(last.lag.values())
    shown = [
        ("due", _rate(last.planned, last), ""),
        ("sent", _rate(last.sent, last), ""),
        ("done", _rate(last.ok + last.error + last.timeout, last), ""),
    ]
    for kind in (view.usual, "service", "lateness"):
        p50, p99, p99_9 = _figures_of(view.last_histograms.get(kind))
        title = TITLES[kind].lower()
        if kind == view.usual:
            shown += [(f"{title} p50", p50, ""), (f"{title} p99", p99, ""), (f"{title} p99.9", p99_9, "")]
        elif (f"{title} p99", p99, "") not in shown:
            shown.append((f"{title} p99", p99, ""))
    shown += [
        ("failed so far", format_share(failed / ended) if ended else "", BAD if failed else GOOD),
        ("in flight", f"{last.in_flight:,}", ""),
        ("waiting", f"{last.waiting:,}", ""),
        ("connections open", f"{last.open:,}", ""),
        ("retries so far", f"{so_far.sums['retries']:,}" if so_far.sums["retries"] else "", ""),
        (
            "worse than recorded",
            f"{so_far.sums['status_worse']:,}" if so_far.sums["status_worse"] else "",
            BAD,
        ),
        ("consumer lag", f"{lag:,}" if last.lag else "", ""),
        ("recorded clock", _time_of_day(view.started.recorded_clock, last.t_s + last.length_s), ""),
    ]
    return cards(shown)


def _rate(count: int, second: Second) -> str:
    return format_rate(count / max(second.length_s, 1e-3))


def _recorded(clock: RecordedClock | None, since_s: float) -> str:
    if clock is None:
        return ""
    at_ns = clock.start_ns + round(since_s * SECOND_NS * clock.speed)
    return format_moment(
        at_ns // SECOND_NS * SECOND_NS, dt.timezone(dt.timedelta(seconds=clock.utc_offset_s))
    )


def _time_of_day(clock: RecordedClock | None, since_s: float) -> str:
    moment = _recorded(clock, since_s).split()
    return moment[1] if moment else ""


def _figures_of(histogram: Histogram | None) -> list[str]:
    if histogram is None or not histogram.count:
        return ["", "", ""]
    return [format_latency(ns) for ns in histogram.percentiles(PERCENTILES)]


def _objectives(view: View) -> str:
    rows: list[list[str]] = []
    for each in view.standings:
        states = {None: "", True: toned("met", GOOD), False: toned("missed", BAD)}
        left = "" if each.left is None else barred(format_share(each.left), each.left)
        rows.append(
            [each.text, states[each.met], each.so_far, states[each.met_now], each.now, left, each.budget]
        )
    groups = [("", 1), ("run so far", 2), ("last window", 2), ("budget", 2)]
    head = ("objective", "", "figure", "", "figure", "left", "spent")
    return html_table(head, rows, "Objectives", groups=groups)


def chart_sections(view: View) -> dict[str, str]:
    """Return every chart as HTML; empty for a chart without data."""
    rows, clock = view.history.rows, view.started.recorded_clock
    closed, slo = view.started.closed_loop, view.started.slo
    made: dict[str, tuple[str, Chart | None]] = {
        "rates": ("Due, sent and answered", figures.rates(rows, clock)),
        "statuses": ("Responses by status", _statuses(rows, clock)),
        "failed": (
            "Failed requests",
            figures.errors(rows, FAILED, clock, figures.goals_among(slo, ("errors",))),
        ),
        "lag": ("Generator lag and waiting for a connection", figures.lag_and_wait(rows, clock)),
        "connections": ("Connections, requests in flight and waiting", _connections(rows, clock)),
        "retries": ("Retries", _counted(rows, view.history.retries, "retries per second", clock)),
        "consumer": ("Consumer lag", _counted(rows, view.history.lag, "records behind", clock, per_s=False)),
        "route-heat": (
            f"{TITLES[view.usual]} by route over time",
            view.route_heat.chart(view.biggest, max(view.history.end_s, 1e-9), clock),
        ),
        "percentiles": ("Latency by percentile so far", _spectrum(view)),
    }
    for kind in () if closed else ("response", "lateness"):
        made[f"heat-{kind}"] = (f"{TITLES[kind]} over time", _heat(view, kind))
    made["heat-service"] = ("Service over time", _heat(view, "service"))
    shown = {
        name: drawn(Figure(title, "", chart)) if chart is not None else ""
        for name, (title, chart) in made.items()
    }
    names = list(dict.fromkeys(name for row in rows for name in row.watched))
    return shown | {"watched": "".join(map(drawn, charts_of(rows, clock, names)))}


def _heat(view: View, kind: str) -> Chart | None:
    history = view.history
    goals = figures.goals_among(view.started.slo, (kind,))
    columns, length_s = history.heat(kind), max(history.end_s, 1e-9)
    return figures.heat_chart(kind, columns, length_s, history.rows, view.started.recorded_clock, goals)


def _spectrum(view: View) -> Chart | None:
    kinds = [("service", BLUE)] if view.started.closed_loop else [("response", ORANGE), ("service", BLUE)]
    lines = [
        (kind, [histogram], 1.0, colour)
        for kind, colour in kinds
        if (histogram := view.so_far.total(kind)) is not None
    ]
    goals = figures.goals_among(view.started.slo, [kind for kind, _ in kinds])
    return figures.spectrum(lines, goals)


def _statuses(rows: list[Second], clock: RecordedClock | None) -> Chart | None:
    colours = {"2xx": GREEN, "3xx": BLUE, "4xx": ORANGE, "5xx": RED}

    def rate(name: str) -> Any:
        return lambda row: row.outcomes.get(name, 0) / max(row.length_s, 1e-9)

    series = [(name, rate(name), colour) for name, colour in colours.items()]
    return figures.over_time(rows, series, "responses per second", clock, "rate")


def _connections(rows: list[Second], clock: RecordedClock | None) -> Chart | None:
    fields = [("open", "open", BLUE), ("in flight", "in_flight", ORANGE), ("waiting", "waiting", PURPLE)]

    def level(field: str) -> Any:
        return lambda row: float(getattr(row, field))

    return figures.over_time(
        rows, [(name, level(field), colour) for name, field, colour in fields], "", clock
    )


def _counted(
    rows: list[Second], counts: list[int], title: str, clock: RecordedClock | None, *, per_s: bool = True
) -> Chart | None:
    """Return a chart of a count that is not in the rows, per second or as a level; None as in `over_time`."""
    of_row = {
        row.t_s: count / (max(row.length_s, 1e-9) if per_s else 1)
        for row, count in zip(rows, counts, strict=True)
    }

    def value(row: Second) -> float | None:
        return of_row.get(row.t_s)

    return figures.over_time(rows, [(title, value, BLUE)], title, clock)


def _latencies(view: View) -> str:
    rows = []
    for kind in ("service",) if view.started.closed_loop else LATENCIES_SHOWN:
        whole = view.so_far.total(kind)
        if whole is not None and whole.count:
            title = TITLES.get(kind, kind.replace("_", " ")).lower()
            so_far = [*_figures_of(whole), format_latency(whole.max)]
            rows.append([title, *so_far, *_figures_of(view.last_histograms.get(kind))])
    head = ("", "p50", "p99", "p99.9", "max", "p50", "p99", "p99.9")
    return html_table(head, rows, "Latencies", groups=[("", 1), ("run so far", 4), ("last second", 3)])


def _outcomes(view: View) -> str:
    """Return a table of how requests ended so far, with the reasons for requests that were never sent."""
    sums, ended = view.so_far.sums, view.so_far.outcomes
    rows = []
    for name, count in ended.most_common():
        why = {row.name: sums[row.counter] for row in UNSENT_REASONS} if name == "unsent" else {}
        words = f"{name}{reasons(why)}"
        share = format_share(count / max(ended.total(), 1))
        rows.append([toned(words, BAD) if name in FAILED else words, f"{count:,}", share])
    return html_table(("outcome", "requests", "share"), rows, "Outcomes")


def _routes(view: View) -> str:
    routes = view.so_far.routes
    more = f" (the {ROUTES_SHOWN} busiest of {len(routes):,})" if len(routes) > ROUTES_SHOWN else ""
    rows = [_route(view, name, outcomes, [name]) for name, outcomes in routes[:ROUTES_SHOWN]]
    note = "Latencies of a route are updated each second, but less often in a long run or with many routes."
    if view.so_far.left_out:
        note += " Some routes have no latencies here, because there are too many routes. The report has them."
    return _route_table(f"Routes{more}", rows, view, note)


def _actions(view: View) -> str:
    members = actions_of((route.name, route.action) for route in view.started.routes)
    actions = view.so_far.actions[:ROUTES_SHOWN]
    rows = [_route(view, name, outcomes, members[name]) for name, outcomes in actions]
    words = view.so_far.business_sentences[:ACTIONS_SHOWN]
    return _route_table("Business actions", rows, view, ". ".join(words) + "." if words else "")


def _route_table(title: str, rows: list[list[str]], view: View, reading: str) -> str:
    groups = [("", 1), ("requests", 2), (view.usual, 3), ("", 1)]
    head = ("route", "count", "share", "p50", "p99", "p99.9", "outcomes")
    return html_table(head, rows, title, reading=reading, groups=groups, long=(6,))


def _route(view: View, name: str, outcomes: Mapping[str, int], members: list[str]) -> list[str]:
    count, total = sum(outcomes.values()), max(view.so_far.outcomes.total(), 1)
    merged: Histogram | None = None
    for member in members:
        for outcome in outcomes:
            part = view.so_far.histogram(tag_of(view.usual, member, outcome))
            if part is not None:
                merged = part if merged is None else merged.merged(part)
    words = ", ".join(f"{key} {value:,}" for key, value in Counter(outcomes).most_common() if value)
    is_bad = any(outcomes.get(key) for key in FAILED)
    share = barred(format_share(count / total), count / total)
    return [named(name), f"{count:,}", share, *_figures_of(merged), toned(words, BAD) if is_bad else words]


def _events(view: View) -> str:
    rows = [
        [format_duration(round(event.at_s * 1e9)) if event.at_s else "0 s",
         _recorded(view.started.recorded_clock, event.at_s),
         toned(event.text, BAD) if event.is_bad else event.text]
        for event in reversed(view.events)
    ]  # fmt: skip
    note = f"{view.events_left_out:,} older events are left out." if view.events_left_out else ""
    head = ("after the start", "recorded clock", "event")
    return html_table(head, rows, "Events", reading=note, left=True)


def _runs(view: View) -> str:
    """Return a table of the runs of this command that have ended; empty if there was only one run so far."""
    if view.number < 2:
        return ""
    rows = [
        [f"run {run.number}", run.target, f"{run.sent:,}", run.p99, run.verdict, _bad(run.failed)]
        for run in reversed(view.ended)
    ]
    head = ("", "target", "sent", f"{view.usual} p99", "verdict", "failed")
    return html_table(head, rows, "Runs that have ended", long=(1, 5))


def _bad(text: str) -> str:
    return toned(text, BAD) if text else ""


def _plan(view: View) -> str:
    started, plan = view.started, view.started.plan
    trace, rows, length_ns = started.trace, plan.get("rows"), plan.get("length_ns")
    facts = [
        ("target", started.target),
        ("recording", f"{trace.path}, {trace.rows:,} requests" if trace else ""),
        ("begins at", _recorded(started.recorded_clock, 0.0)),
        ("requests", f"{rows:,}" if isinstance(rows, int) else ""),
        ("length", format_duration(length_ns) if isinstance(length_ns, int) and length_ns else ""),
        ("speed", f"{started.recorded_clock.speed:g}×" if started.recorded_clock else ""),
        ("not sent", ", ".join(f"{name} {count:,}" for name, count in started.skipped.items() if count)),
        (
            "busiest second",
            format_rate(peak) if isinstance(peak := plan.get("peak_1s_per_s"), int | float) else "",
        ),
        ("engine", f"{started.engine}, {sum(target.lanes for target in started.targets)} lanes"),
        ("objectives", "; ".join(started.slo)),
        ("run", started.run_id),
    ]
    return folded("The plan", facts_table("", facts))
