"""The report of a run in the terminal: validity first, then what was sent, then how it went.

Every moment stands in both clocks, the recorded one and the wall's. Plain where the console is no terminal;
without characters beyond ASCII where it cannot show them.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from replay.ledger.catalog import HISTOGRAMS
from replay.results.document import (
    AddressFigures,
    Latencies,
    Latency,
    RouteFigures,
    RunDocument,
)
from replay.results.failures import failed_words, failures_of
from replay.results.measured import FAILED, Value
from replay.results.run import Run
from replay.results.samples import Sample
from replay.results.slo import words_of
from replay.results.timeline import Second
from replay.units import (
    SECOND_NS,
    format_duration,
    format_latency,
    format_moment,
    format_share,
    to_datetime,
)

from .facts import (
    facts_of,
    ok_words,
    reasons,
    sent_words,
    target_words,
)
from .page import Page

DAY_S = 86_400
ROUTES_SHOWN = 15
SECONDS_SHOWN = 5
SAMPLES_SHOWN = 8
PROBLEMS_SHOWN = 5
ADDRESSES_SHOWN = 20
SPECTRUM = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999, 99.9999)
AXIS_COLUMNS, AXIS_LEAVES = 48, 36

_VERDICT_STYLE = {"VALID": "bold green", "SUSPECT": "bold yellow", "INVALID": "bold red"}
_NOT_GREEN = "bold"
"""Of a VALID that stands beside a failure: the measurement is right, and the target failed."""


def print_report(run: Run, console: Console) -> None:
    """Print all that a run says of itself."""
    page, document = Page(console), run.document
    _headline(page, run)
    _accounts(page, document)
    _facts(page, document)
    _addresses(page, document)
    _sessions(page, document)
    _latencies(page, document)
    _routes(page, "Actions", document.actions, document)
    _routes(page, "Routes", document.routes, document)
    _spectrum(page, run)
    _seconds(page, run)
    _samples(page, run)
    _objectives(page, document)
    _files(page, run)


def _headline(page: Page, run: Run) -> None:
    document = run.document
    verdict = document.validity.verdict
    how = {
        "whole": "",
        "killed": "killed, recovered",
        "circuit_breaker": "stopped by the circuit breaker",
        "not_allowed": "stopped: the target is no longer one that is allowed",
    }
    ended = how.get(document.ending.how, document.ending.how)
    failures = failures_of(document)
    page.parts(
        [
            (verdict, _NOT_GREEN if failures and verdict == "VALID" else _VERDICT_STYLE[verdict]),
            ("  " + sent_words(document), "bold"),
            (f" in {format_duration(round(document.duration_s * SECOND_NS))}", ""),
            (f"  {ended}" if ended else "", "bold yellow"),
        ]
    )
    if failures:
        page.say(failed_words(failures), "bold red", indent=2)
    for reason in document.validity.reasons:
        page.say(f"{reason.code}: {reason.message}", _VERDICT_STYLE[reason.verdict], indent=2)
        page.say(reason.advice, indent=4)
    if document.ending.detail:
        page.say(
            f"ended after {format_duration(round(document.ending.at_s * SECOND_NS))}: {document.ending.detail}",
            indent=2,
        )
    for note in document.notes:
        page.say(f"{note.code}: {note.message}", "cyan", indent=2)


def _accounts(page: Page, document: RunDocument) -> None:
    accounts, detail = document.accounts, document.accounts_detail
    page.say()
    unsent, errors = reasons(detail.unsent), reasons(detail.error)
    sums = (
        f"planned {accounts.planned:,} = sent {accounts.sent:,} + unsent {accounts.unsent:,}{unsent}; sent = "
    )
    sums += f"{ok_words(document)} + error {accounts.error:,}{errors} + timeout {accounts.timeout:,}"
    sums += f" + in flight {accounts.in_flight:,}" if accounts.in_flight else ""
    page.say(sums)
    more = [f"skipped {accounts.skipped:,}{reasons(detail.skipped)}"] if accounts.skipped else []
    more += [f"status {_shares(detail.status_class)}"] if accounts.ok else []
    more += [_differs(document)] if document.status_differs and document.status_differs.share else []
    more += [f"warm-up {detail.warm_up:,} (in no latency)"] if detail.warm_up else []
    more += [f"sent twice {detail.resent:,}"] if detail.resent else []
    if more:
        page.say("; ".join(more))
    if (retries := document.retries) is not None:
        denied = f", {retries.denied:,} denied by the budget" if retries.denied else ""
        page.say(
            f"amplification {retries.amplification:.2f}: {retries.at_target:,} requests at the target for"
            f" {accounts.sent:,} of users; {retries.retries:,} retries of {retries.retried:,}{denied}"
        )
    spans = (("recorded", _recorded_span(document)), ("wall", _wall_span(document)))
    for name, value in (("target", target_words(document)), *spans):
        if value:
            page.say(f"{name:<9} {value}")


def _differs(document: RunDocument) -> str:
    differs = document.status_differs
    assert differs is not None
    return f"worse than recorded {format_share(differs.share)}"


def _sessions(page: Page, document: RunDocument) -> None:
    """What captures found and checks said, rule by rule."""
    sessions = document.sessions
    if sessions is None:
        return
    if sessions.checked:
        share = format_share(sessions.mismatches / sessions.checked)
        words = f"checked   {sessions.checked:,} answers: {sessions.mismatches:,} mismatches ({share})"
        page.say(words, "red" if sessions.mismatches else "")
    for rule in sessions.rules:
        missed = f", missed {rule.missed:,}" if rule.missed else ""
        if rule.refused:
            missed += f" ({rule.refused:,} refused: not a plain path of the target)"
        page.say(f"{rule.rule}: {rule.good:,}{missed}", "yellow" if missed else "", indent=10)
    if sessions.cookies_cut:
        page.say(f"{sessions.cookies_cut:,} cookies found no room (limits.cookies)", "yellow", indent=10)
    if sessions.answers_cut:
        page.say(
            f"{sessions.answers_cut:,} answers were longer than limits.answer: their bodies were not looked at",
            "yellow",
            indent=10,
        )


def _facts(page: Page, document: RunDocument) -> None:
    """What only some targets have: a bus, a name, TLS."""
    for fact in facts_of(document):
        page.say(
            f"{fact.label:<9} {fact.words}" if fact.label else fact.words, fact.style, 0 if fact.label else 10
        )


def _addresses(page: Page, document: RunDocument) -> None:
    """What each address of the target got, where it had several."""
    if len(document.addresses) > 1:
        columns = ("connects", "requests", "errors", "drained")
        page.say()
        page.table(
            [("address", ""), *((column, "right") for column in columns), ("", "wide")],
            [
                (
                    f"[{row.address}]:{row.port}" if ":" in row.address else f"{row.address}:{row.port}",
                    *(f"{getattr(row, column):,}" for column in columns),
                    page.text(_state_of(row), "dim"),
                )
                for row in document.addresses[:ADDRESSES_SHOWN]
            ],
        )
        if len(document.addresses) > ADDRESSES_SHOWN:
            page.say(f"{len(document.addresses) - ADDRESSES_SHOWN:,} more addresses are in run.json", "dim")


def _state_of(row: AddressFigures) -> str:
    failed = f"{row.connects_failed:,} connects failed" if row.connects_failed else ""
    return ", ".join(part for part in (failed, "removed" if row.removed else "") if part)


def _recorded_span(document: RunDocument) -> str:
    clock = document.recorded_clock
    path = document.trace.path if document.trace else ""
    if clock is None:
        return path
    end_ns = clock.start_ns + round(document.duration_s * SECOND_NS * clock.speed)
    start, end = _moment(clock.start_ns, clock.utc_offset_s), _clock(end_ns, clock.utc_offset_s)
    span = f"{start} – {end} at {clock.speed:g}×"
    return f"{span} · {path}" if path else span


def _wall_span(document: RunDocument) -> str:
    start_ns = document.start.wall_ns
    return f"{_moment(start_ns)} – {_clock(start_ns + round(document.duration_s * SECOND_NS))}"


def _moment(at_ns: int, utc_offset_s: int = 0) -> str:
    return format_moment(at_ns, dt.timezone(dt.timedelta(seconds=utc_offset_s)))


def _clock(at_ns: int, utc_offset_s: int = 0, form: str = "%H:%M:%S.%f") -> str:
    text = to_datetime(at_ns, dt.timezone(dt.timedelta(seconds=utc_offset_s))).strftime(form)
    return text[:-3] if form.endswith("%f") else text


def _both_clocks(
    document: RunDocument, since_start_ns: int, recorded_ns: int | None = None
) -> tuple[str, str]:
    """A moment of the run as (recorded, wall); the recorded one is empty where nobody knows it."""
    clock, offset_s = document.recorded_clock, 0
    if clock is not None:
        offset_s = clock.utc_offset_s
        recorded_ns = recorded_ns or clock.start_ns + round(since_start_ns * clock.speed)
    recorded = ""
    if recorded_ns is not None:
        days = clock is not None and document.duration_s * clock.speed > DAY_S
        recorded = _clock(recorded_ns, offset_s, "%b %d %H:%M:%S" if days else "%H:%M:%S.%f")
    return recorded, _clock(document.start.wall_ns + since_start_ns)


def _shares(counts: dict[str, int]) -> str:
    """`2xx 99.1%, reset 0.9%`; of one alone just its name."""
    total = sum(counts.values())
    found = sorted(((name, count) for name, count in counts.items() if count), key=lambda item: -item[1])
    if len(found) == 1:
        return found[0][0]
    return ", ".join(f"{name} {_short_share(count / total)}" for name, count in found)


def _short_share(share: float) -> str:
    """A share to a tenth of a percent: there is little room in a row."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def _figure(latency: Latency | None, name: str) -> str:
    if latency is None or latency.count == 0:
        return ""
    return ("≥" if name in latency.at_least else "") + format_latency(getattr(latency, name))


def _latencies(page: Page, document: RunDocument) -> None:
    _latency_table(page, "latency", document.latency)
    for target in document.targets:
        a = target.accounts
        page.title(f"Target {target.target}")
        sums = f"planned {a.planned:,} = sent {a.sent:,} + unsent {a.unsent:,}; sent = ok {a.ok:,} + error {a.error:,}"
        page.say(f"{sums} + timeout {a.timeout:,}" + (f" + in flight {a.in_flight:,}" if a.in_flight else ""))
        _latency_table(page, f"{target.engine} engine", target.latency)


def _latency_table(page: Page, title: str, latency: Latencies) -> None:
    rows = [(row.title, getattr(latency, row.field), row.words) for row in HISTOGRAMS if row.title]
    names = ("p50_ns", "p90_ns", "p99_ns", "p99_9_ns", "max_ns")
    page.say()
    page.table(
        [(title, ""), *((n, "right") for n in ("p50", "p90", "p99", "p99.9", "max")), ("", "wide")],
        [
            (name, *(_figure(figures, n) for n in names), page.text(meaning, "dim"))
            for name, figures, meaning in rows
            if isinstance(figures, Latency)
        ],
    )


def _routes(page: Page, title: str, routes: list[RouteFigures], document: RunDocument) -> None:
    """A table of routes, or of actions."""
    if not routes:
        return
    shown = routes[:ROUTES_SHOWN]
    more = f" (the {len(shown)} biggest of {len(routes)})" if len(shown) < len(routes) else ""
    page.title(f"{title}{more}")
    headers = [("", "short"), ("share", "right"), ("resp. p50", "right"), ("p99", "right")]
    headers += [("serv. p50", "right"), ("p99", "right"), ("outcomes", "wide")]
    recorded_total = sum(route.recorded.count for route in document.routes if route.recorded) or 1
    rows: list[Sequence[str | Text]] = []
    for route in shown:
        rows.append(_replayed_row(page, route))
        if route.recorded is not None and route.recorded.count:
            rows.append(_recorded_row(page, route, recorded_total))
    page.table(headers, rows)


def _replayed_row(page: Page, route: RouteFigures) -> list[str | Text]:
    faulty = route.worse or any(route.outcomes.get(name) for name in FAILED)
    return [
        page.text(route.route, "bold"),
        _short_share(route.share),
        *(_figure(route.response, name) for name in ("p50_ns", "p99_ns")),
        *(_figure(route.service, name) for name in ("p50_ns", "p99_ns")),
        page.text(_shares(route.outcomes), "red" if faulty else ""),
    ]


def _recorded_row(page: Page, route: RouteFigures, total: int) -> list[str | Text]:
    """What the recording says, under what was replayed. What a log calls a request's time is the target's:
    its service.
    """
    recorded = route.recorded
    assert recorded is not None
    took = [format_latency(ns) if ns is not None else "" for ns in (recorded.p50_ns, recorded.p99_ns)]
    cells = ["  recorded", _short_share(recorded.count / total), "", "", *took, _shares(recorded.statuses)]
    return [page.text(cell, "dim") for cell in cells]


def _spectrum(page: Page, run: Run) -> None:
    """Percentiles on the 1/(1-p) axis, as far as there are requests; values as dots on a log axis."""
    kinds = {"service": "○"} if run.document.closed_loop else {"service": "○", "response": "●"}
    service = run.measured.histogram("service")
    count = service.count if service is not None else 0
    asked = [p for p in SPECTRUM if count * (100 - p) / 100 >= 1]
    found = {kind: run.measured.percentiles(kind, asked) or [] for kind in kinds} if asked else {}
    values = [value.ns for row in found.values() for value in row]
    if not values:
        return
    low, high = max(min(values), 1), max(*values, 2)
    columns = min(max(page.width - AXIS_LEAVES, AXIS_LEAVES), AXIS_COLUMNS)
    page.title("Percentile spectrum" + ("  (● response  ○ service)" if "response" in kinds else ""))
    rows = []
    for number, percentile in enumerate(asked):
        reached = {kind: row[number] for kind, row in found.items() if row}
        figures = [_value(reached[kind]) if kind in reached else "" for kind in ("response", "service")]
        marks = {kinds[kind]: value.ns for kind, value in reached.items()}
        one_in = f"{round(100 / (100 - percentile)):,}"
        rows.append((f"p{percentile:g}", one_in, *figures, _dots(marks, low, high, columns)))
    axis = format_latency(low).ljust(columns - len(format_latency(high))) + format_latency(high)
    page.table([("", ""), ("1 in", "right"), ("response", "right"), ("service", "right"), (axis, "")], rows)


def _value(value: Value) -> str:
    return ("≥" if value.at_least else "") + format_latency(value.ns)


def _dots(marks: dict[str, int], low: int, high: int, columns: int) -> str:
    line = ["·"] * columns
    for mark, ns in marks.items():
        at = math.log(max(ns, low) / low) / math.log(high / low) if high > low else 0.0
        line[min(round(at * (columns - 1)), columns - 1)] = mark
    return "".join(line)


def _seconds(page: Page, run: Run) -> None:
    document = run.document
    tail = "service_p99_ns" if document.closed_loop else "response_p99_ns"
    rows = [row for row in run.timeline() if getattr(row, tail) is not None]
    if len(rows) < 2:
        return
    page.title("Slowest seconds")
    slowest = sorted(rows, key=lambda row: -(getattr(row, tail) or 0))[:SECONDS_SHOWN]
    headers = [("recorded", ""), ("wall", ""), ("due", "right"), ("answered", "right")]
    headers += [
        ("resp. p99", "right"),
        ("serv. p99", "right"),
        ("late p99", "right"),
        ("failed, 4xx", "wide"),
    ]
    page.table(headers, [_second_row(page, document, row) for row in slowest])


def _bounded(figure: tuple[int, bool] | None) -> str:
    """A figure of a second."""
    return "" if figure is None else ("≥" if figure[1] else "") + format_latency(figure[0])


def _second_row(page: Page, document: RunDocument, row: Second) -> list[str | Text]:
    recorded, wall = _both_clocks(document, round(row.t_s * SECOND_NS))
    failed = {name: count for name, count in row.outcomes.items() if name == "4xx" or name in FAILED}
    response, *times = (
        _bounded(row.figure_ns(name)) for name in ("response_p99_ns", "service_p99_ns", "lateness_p99_ns")
    )
    censored = row.unsent > 0 and (row.response_p99_ns or 0) >= document.max_wait_ns
    return [
        recorded or "-",
        wall,
        f"{row.planned:,}",
        f"{row.ok:,}",
        ("≥" if censored and not response.startswith("≥") else "") + response,
        *times,
        page.text(", ".join(f"{name} {count:,}" for name, count in failed.items()), "red"),
    ]


def _samples(page: Page, run: Run) -> None:
    samples = run.samples()
    slowest = sorted((s for s in samples if s.kind == "slowest"), key=lambda s: -(s.response_ns or 0))
    failed = sorted((s for s in samples if s.kind == "failed"), key=lambda s: s.due_ns)
    mismatched = sorted((s for s in samples if s.kind == "mismatched"), key=lambda s: s.due_ns)
    tables = (
        ("Slowest requests", slowest), ("First failed requests", failed), ("First mismatches", mismatched),
    )  # fmt: skip
    for title, found in tables:
        if not found:
            continue
        page.title(title)
        headers = [
            ("recorded", ""),
            ("wall", ""),
            ("response", "right"),
            ("wait", "right"),
            ("service", "right"),
        ]
        headers += [("ended", ""), ("request", "wide")]
        page.table(headers, [_sample_row(page, run.document, sample) for sample in found[:SAMPLES_SHOWN]])
    problems = Counter((sample.problem, sample.begins) for sample in failed if sample.problem)
    for (problem, begins), count in problems.most_common(PROBLEMS_SHOWN):
        answers = f"{count:,} malformed answers: " if count > 1 else "a malformed answer: "
        page.say(f'{answers}{problem}; the first line begins "{begins}"', "dim")


def _is_bad(sample: Sample) -> bool:
    return sample.kind == "mismatched" or sample.outcome in FAILED


def _became(sample: Sample) -> str:
    """What became of a request, in a word or two."""
    why = f" ({sample.reason})" if sample.reason else ""
    return sample.rule or str(sample.status or sample.outcome) + why


def _sample_row(page: Page, document: RunDocument, sample: Sample) -> list[str | Text]:
    recorded, wall = _both_clocks(document, sample.due_ns, sample.recorded_ns)
    wait = (
        sample.sent_ns - sample.taken_ns
        if sample.sent_ns is not None and sample.taken_ns is not None
        else None
    )
    service = (
        sample.done_ns - sample.sent_ns if sample.done_ns is not None and sample.sent_ns is not None else None
    )
    response = format_latency(sample.response_ns) if sample.response_ns is not None else ""
    return [
        recorded or "-",
        wall,
        ("≥" if sample.at_least else "") + response,
        *(format_latency(ns) if ns is not None else "" for ns in (wait, service)),
        page.text(_became(sample), "red" if _is_bad(sample) else ""),
        f"{sample.method} {sample.path}".strip() or sample.route,
    ]


def _objectives(page: Page, document: RunDocument) -> None:
    if not document.slo:
        return
    page.title("Objectives")
    for slo in document.slo:
        mark, style = ("✓ met   ", "green") if slo.passed else ("✗ failed", "bold red")
        page.parts([(mark, style), (f"  {slo.slo}  ", ""), (words_of(slo), "dim")])


def _files(page: Page, run: Run) -> None:
    folder = run.folder
    names = (folder.run, folder.totals, folder.latency, folder.timeline, folder.samples)
    page.title("Files")
    page.say(f"{folder.path}/ {' '.join(path.name for path in names if path.exists())}")
