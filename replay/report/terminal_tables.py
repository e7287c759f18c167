"""The tables of a run's report in the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rich.text import Text

from replay.results.document import AddressFigures, Latencies, Latency, RouteFigures, RunDocument
from replay.results.measured import FAILED, Value
from replay.results.run import Run
from replay.results.samples import Sample
from replay.results.timeline import Second
from replay.settings.trace_url import NO_TRACE, link_of
from replay.units import SECOND_NS, format_latency

from .business import business_words, interval_words, worst_minutes
from .clocks import both_clocks
from .fit import shortened
from .page import Page
from .words import FIGURES, LATENCIES

ROUTES_SHOWN = 15
SECONDS_SHOWN = 5
SAMPLES_SHOWN = 8
PROBLEMS_SHOWN = 5
ADDRESSES_SHOWN = 20
PATH_CHARS = 150
SPECTRUM = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999, 99.9999)
AXIS_COLUMNS, AXIS_LEAVES, AXIS_LEAST = 48, 40, 16

Row = Sequence[str | Text]


def print_addresses(page: Page, document: RunDocument) -> None:
    """Print the requests to at most ADDRESSES_SHOWN addresses of the target, if it has several."""
    if len(document.addresses) > 1:
        columns = ("connects", "requests", "errors", "drained")
        page.say()
        page.table(
            [("address", ""), *((column, "right") for column in columns), ("", "text")],
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


def shares_words(counts: dict[str, int]) -> str:
    """Return the share of each outcome, such as `2xx 99.1%, reset 0.9%`; for a single outcome just its name."""
    total = sum(counts.values())
    found = sorted(((name, count) for name, count in counts.items() if count), key=lambda item: -item[1])
    if len(found) == 1:
        return found[0][0]
    return ", ".join(f"{name} {_short_share(count / total)}" for name, count in found)


def _short_share(share: float) -> str:
    """Format a share to a tenth of a percent, because a row has little space."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def _figure(latency: Latency | None, name: str) -> str:
    if latency is None or latency.count == 0:
        return ""
    return ("≥" if name in latency.at_least else "") + format_latency(getattr(latency, name))


def print_latencies(page: Page, document: RunDocument) -> None:
    """Print the latencies of the run, and those of each target if there are several."""
    _latency_table(page, "latency", document.latency)
    for target in document.targets:
        a = target.accounts
        page.title(f"Target {target.target}")
        sums = f"planned {a.planned:,} = sent {a.sent:,} + unsent {a.unsent:,}; sent = ok {a.ok:,} + error {a.error:,}"
        page.say(f"{sums} + timeout {a.timeout:,}" + (f" + in flight {a.in_flight:,}" if a.in_flight else ""))
        _latency_table(page, f"{target.engine} engine", target.latency)


def _latency_table(page: Page, title: str, latency: Latencies) -> None:
    page.say()
    page.table(
        [(title, ""), *((name, "right") for name in FIGURES.values()), ("", "note")],
        [
            (name, *(_figure(figures, figure) for figure in FIGURES), page.text(meaning, "dim"))
            for field, name, meaning in LATENCIES
            if isinstance(figures := getattr(latency, field), Latency)
        ],
    )


def print_business(page: Page, document: RunDocument) -> None:
    """Print which business actions failed, what that cost, and the worst intervals."""
    business, words = document.business, business_words(document)
    if business is None or not words:
        return
    page.title("Business actions")
    for sentence in words:
        page.say(sentence)
    page.say(business.counted, "dim")
    if worst := worst_minutes(document):
        page.say()
        lost = [("lost", "right")] if any(row[3] for row in worst) else []
        page.table(
            [(f"worst by {interval_words(business)}", ""), ("action", "name"), ("failed", "right"), *lost],
            [row[: 3 + len(lost)] for row in worst],
        )


def print_routes(page: Page, title: str, routes: list[RouteFigures], document: RunDocument) -> None:
    """Print a table of the busiest routes or actions, with the recorded figures below those of the run."""
    if not routes:
        return
    shown = routes[:ROUTES_SHOWN]
    more = f" (the {len(shown)} busiest of {len(routes)})" if len(shown) < len(routes) else ""
    page.title(f"{title}{more}")
    headers = [("", "name"), ("share", "right"), ("resp p50", "right"), ("resp p99", "right")]
    headers += [("serv p50", "right"), ("serv p99", "right"), ("outcomes", "text")]
    recorded_total = sum(route.recorded.count for route in document.routes if route.recorded) or 1
    rows: list[Row] = []
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
        page.text(shares_words(route.outcomes), "red" if faulty else ""),
    ]


def _recorded_row(page: Page, route: RouteFigures, total: int) -> list[str | Text]:
    """Return the row with the recorded figures, which is printed below the replayed ones.

    Recorded durations are in the columns of the service time, which is what a log contains.
    """
    recorded = route.recorded
    assert recorded is not None
    took = [format_latency(ns) if ns is not None else "" for ns in (recorded.p50_ns, recorded.p99_ns)]
    cells = [
        "  recorded",
        _short_share(recorded.count / total),
        "",
        "",
        *took,
        shares_words(recorded.statuses),
    ]
    return [page.text(cell, "dim") for cell in cells]


def print_spectrum(page: Page, run: Run) -> None:
    """Print percentiles on the 1/(1-p) axis, as far as there are enough requests, with dots on a log axis."""
    kinds = {"service": "○"} if run.document.closed_loop else {"service": "○", "response": "●"}
    service = run.measured.histogram("service")
    count = service.count if service is not None else 0
    asked = [p for p in SPECTRUM if count * (100 - p) / 100 >= 1]
    found = {kind: run.measured.percentiles(kind, asked) or [] for kind in kinds} if asked else {}
    values = [value.ns for row in found.values() for value in row]
    if not values:
        return
    low, high = max(min(values), 1), max(*values, 2)
    columns = min(page.width - AXIS_LEAVES, AXIS_COLUMNS)
    page.title("Percentile spectrum" + ("  (● response  ○ service)" if "response" in kinds else ""))
    rows = []
    for number, percentile in enumerate(asked):
        reached = {kind: row[number] for kind, row in found.items() if row}
        figures = [_value(reached[kind]) if kind in reached else "" for kind in ("response", "service")]
        marks = {kinds[kind]: value.ns for kind, value in reached.items()}
        one_in = f"{round(100 / (100 - percentile)):,}"
        rows.append((f"p{percentile:g}", one_in, *figures, _dots(marks, low, high, max(columns, 1))))
    heads = [("", ""), ("1 in", "right"), ("response", "right"), ("service", "right")]
    if columns < AXIS_LEAST:
        page.table(heads, [row[:-1] for row in rows])
        return
    axis = format_latency(low).ljust(columns - len(format_latency(high))) + format_latency(high)
    page.table([*heads, (axis, "")], rows)


def _value(value: Value) -> str:
    return ("≥" if value.at_least else "") + format_latency(value.ns)


def _dots(marks: dict[str, int], low: int, high: int, columns: int) -> str:
    line = ["·"] * columns
    for mark, ns in marks.items():
        at = math.log(max(ns, low) / low) / math.log(high / low) if high > low else 0.0
        line[min(round(at * (columns - 1)), columns - 1)] = mark
    return "".join(line)


def print_seconds(page: Page, run: Run) -> None:
    """Print the SECONDS_SHOWN seconds with the highest p99, if at least two seconds have one."""
    document = run.document
    tail = "service_p99_ns" if document.closed_loop else "response_p99_ns"
    rows = [row for row in run.seconds() if getattr(row, tail) is not None]
    if len(rows) < 2:
        return
    page.title("Slowest seconds")
    slowest = sorted(rows, key=lambda row: -(getattr(row, tail) or 0))[:SECONDS_SHOWN]
    headers = [("recorded", ""), ("wall", ""), ("due", "right"), ("answered", "right")]
    headers += [
        ("resp p99", "right"),
        ("serv p99", "right"),
        ("lag p99", "right"),
        ("failed, 4xx", "text"),
    ]
    page.table(headers, [_second_row(page, document, row) for row in slowest])


def _bounded(figure: tuple[int, bool] | None) -> str:
    """Format a figure of one second, with `≥` if it is only a lower bound."""
    return "" if figure is None else ("≥" if figure[1] else "") + format_latency(figure[0])


def _second_row(page: Page, document: RunDocument, row: Second) -> list[str | Text]:
    recorded, wall = both_clocks(document, round(row.t_s * SECOND_NS))
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


def print_samples(page: Page, run: Run) -> None:
    """Print the slowest requests, the first failed ones, the first mismatches, and how malformed responses begin."""
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
        headers += [("ended", ""), ("request", "path")]
        rows = [_sample_row(page, run.document, sample) for sample in found[:SAMPLES_SHOWN]]
        if any(sample.trace_id for sample in found[:SAMPLES_SHOWN]):
            headers.append(("trace", ""))
            rows = [[*row, sample.trace_id] for row, sample in zip(rows, found, strict=False)]
        page.table(headers, rows)
    if link_of(run.document.scenario.get("trace_url"), NO_TRACE):
        page.say(f"the page of a trace: {run.document.scenario['trace_url']}", "dim")
    problems = Counter((sample.problem, sample.begins) for sample in failed if sample.problem)
    for (problem, begins), count in problems.most_common(PROBLEMS_SHOWN):
        responses = f"{count:,} malformed responses: " if count > 1 else "a malformed response: "
        page.say(f'{responses}{problem}; the first line begins "{begins}"', "dim")


def _is_bad(sample: Sample) -> bool:
    return sample.kind == "mismatched" or sample.outcome in FAILED


def _became(sample: Sample) -> str:
    """Return the check that a response failed, or else its status or outcome, with the reason if one is known."""
    why = f" ({sample.reason})" if sample.reason else ""
    return sample.rule or str(sample.status or sample.outcome) + why


def _sample_row(page: Page, document: RunDocument, sample: Sample) -> list[str | Text]:
    recorded, wall = both_clocks(document, sample.due_ns, sample.recorded_ns)
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
        shortened(f"{sample.method} {sample.path}".strip() or sample.route, PATH_CHARS),
    ]
