"""Service level objectives: parse an expression such as `p99<250ms`, and evaluate it on a run.

    p99 < 250ms
    p(99) response of "POST /v1/users" < 250ms over 10s
    errors of "registration" < 0.1%

An objective limits one of these figures:
- a percentile (`p99`, `p(99)`, `max`) of a latency (one of METRICS; response if none is given);
- the share of `errors`, of an outcome (`5xx`, `timeout`, `unsent`, ...), of requests whose `statuses differ` (worse
  than recorded: `replay.ledger.statuses`), or of `mismatches` among the responses that were checked.

It covers all requests or, in quotes, a route (`*` matches anything) or a business action. It must hold over the whole
run, or in every window of a length (`replay.results.windows`).

Times and shares need a unit: `p99<250` could be 250 ms or 250 s, and an objective of 250 s might never fail.

`errors` are requests that a user would have seen fail: 5xx, no complete response, no response in time, never sent. A
4xx is not one of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, cast

from replay.errors import InputError, UsageError
from replay.ledger.catalog import ALIASES, FAILED, OUTCOMES, PER_ROUTE, SLO_METRICS
from replay.naming import first_naming
from replay.units import (
    duration_text,
    format_duration,
    format_latency,
    format_share,
    is_bare,
    nearest,
    parse_duration_ns,
    parse_share,
)

from .document import RouteStart, SloOutcome, WindowsHeld
from .measured import OTHER, Measured
from .windows import LEAST_WINDOW_NS, Window

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedInput

METRICS = SLO_METRICS
"""Latencies that an objective may limit."""

FORMS = (
    'p99<250ms, errors < 0.1% over 10s, statuses differ < 5%, or p(99) service of "POST /v1/users" < 250ms'
)

_GRAMMAR = r"""
    start: WHAT ("(" NUMBER ")")? METRIC? ("of" ROUTE)? OPERATOR LIMIT ("over" WINDOW)?
    OPERATOR: "<=" | "<"
    ROUTE: /"[^"]*"/
    WHAT: /[^\s<>()"]+/
    NUMBER: /[^\s<>()"]+/
    METRIC: /[^\s<>()"]+/
    LIMIT: /[^\s<>()"]+/
    WINDOW: /[^\s<>()"]+/
    %ignore /\s+/
"""
_EXPECTED = {
    "WHAT": "a percentile (p99) or a share (errors)", "NUMBER": "a percentile", "RPAR": "')'",
    "OPERATOR": "'<'", "LIMIT": "a limit", "ROUTE": "a route or an action in double quotes",
    "WINDOW": "the length of a window", "OVER": "'over' and a window, or the end",
    "$END": "the end",
}  # fmt: skip
"""Names of symbols in messages. If several symbols are possible, the message has the one that is listed first here."""

MISMATCHES, STATUSES, DIFFER = "mismatches", "statuses", "differ"
_SHARES = {name: (name,) for name in (*(outcome.name for outcome in OUTCOMES), MISMATCHES, STATUSES)} | {
    "errors": FAILED
}
_WHOLE_RUN = {MISMATCHES: "mismatches are", STATUSES: "statuses are"}
"""Shares that are counted only over the whole run."""

_PERCENTILE = re.compile(r"p?(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Slo:
    """One objective.

    `percentile` is None for a share of `outcomes`. `limit` is in ns or a share. `route` may be an action. `window_ns`
    is None for the whole run.
    """

    text: str
    limit: float
    or_equal: bool
    metric: str = "response"
    percentile: float | None = None
    outcomes: tuple[str, ...] = ()
    route: str = ""
    window_ns: int | None = None

    @property
    def unit(self) -> Literal["ns", "share"]:
        """The unit of `limit`."""
        return "share" if self.percentile is None else "ns"


@cache
def _parser() -> Lark:
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr")


def parse(text: str) -> Slo:
    """Parse an objective. Raise UsageError with the column of a fault and what is expected there."""
    from lark.exceptions import UnexpectedInput

    try:
        tokens = cast("list[Token]", _parser().parse(text).children)
    except UnexpectedInput as error:
        raise _unexpected(text, error) from None
    found = {token.type: str(token) for token in tokens}
    at = {token.type: token.start_pos or 0 for token in tokens}

    def checked(read: Callable[[str], float], symbol: str) -> float:
        _refuse_bare(text, found[symbol], at[symbol], symbol if read is parse_duration_ns else "SHARE")
        try:
            return read(found[symbol])
        except UsageError as error:
            message = f"SLO {text!r}, column {at[symbol] + 1}: {error}"
            raise UsageError(message, hint=error.hint) from None

    if found["WHAT"] == STATUSES and "NUMBER" not in found and found.pop("METRIC", "") != DIFFER:
        raise _wrong(text, at["WHAT"], f"found where '{STATUSES} {DIFFER}' is expected")
    metric, route, window_ns = found.get("METRIC", "response"), found.get("ROUTE", "").strip('"'), None
    metric = ALIASES.get(metric, metric)
    if metric not in METRICS:
        why = f"is not a metric{_guess(metric, METRICS)}; there are {', '.join(METRICS)}"
        raise _wrong(text, at["METRIC"], why)
    percentile = _percentile(text, at["WHAT"], found)
    if percentile is None and "METRIC" in found:
        raise _wrong(text, at["METRIC"], f"is a latency, but {found['WHAT']} is a share of requests")
    if route and metric not in PER_ROUTE:
        why = f"limits {metric} of a route, but it is measured over all routes only"
        raise _wrong(text, at["WHAT"], why)
    if "WINDOW" in found and found["WHAT"] in _WHOLE_RUN:
        raise _wrong(
            text, at["WINDOW"], f"is not possible: {_WHOLE_RUN[found['WHAT']]} counted over the whole run"
        )
    if "WINDOW" in found:
        window_ns = int(checked(parse_duration_ns, "WINDOW"))
        if window_ns < LEAST_WINDOW_NS:
            raise _wrong(text, at["WINDOW"], "is too short for a window: the minimum is 1 s")
    limit = checked(parse_share if percentile is None else parse_duration_ns, "LIMIT")
    outcomes = _SHARES[found["WHAT"]] if percentile is None else ()
    or_equal = found["OPERATOR"] == "<="
    return Slo(text.strip(), float(limit), or_equal, metric, percentile, outcomes, route, window_ns)


_READINGS = {
    "SHARE": lambda number: [f"{number}%", *([f"{float(number) * 100:g}%"] if float(number) <= 1 else [])],
    "LIMIT": lambda number: [f"{number} ms", f"{number} s"],
    "WINDOW": lambda number: [f"{number} s", f"{number} m"],
}
"""Possible meanings of a number without a unit, for a share, a latency and the length of a window."""


def parse_known(texts: Iterable[str]) -> list[Slo]:
    """Return the objectives among `texts`, and skip texts that are not valid objectives.

    Results of other versions, and simulated results, may contain such texts.
    """
    found = []
    for text in texts:
        with contextlib.suppress(UsageError):
            found.append(parse(text))
    return found


def _refuse_bare(text: str, number: str, at: int, kind: str) -> None:
    """Raise UsageError if a limit or a window has no unit. The message lists its possible meanings."""
    if not is_bare(number):
        return
    readings = list(dict.fromkeys(_READINGS[kind](number)))
    shown = text[:at] + "{}" + text[at + len(number) :]
    raise UsageError(
        f"SLO {text!r}, column {at + 1}: {number!r} has no unit"
        + (f": it could be {' or '.join(readings)}" if len(readings) > 1 else ""),
        hint="write " + " or ".join(shown.format(reading.replace(" ", "")) for reading in readings),
    )


def replaces_status_rule(slo: Slo) -> bool:
    """Return whether an objective limits how many of all responses may have a worse status than recorded."""
    return slo.outcomes == (STATUSES,) and not slo.route


def canonical(slo: Slo) -> str:
    """Return an objective in full, with canonical units, as the plan shows it: `p99 response < 250ms over 10s`.

    `parse` reads it back.
    """
    of = f' of "{slo.route}"' if slo.route else ""
    if slo.percentile is None:
        what = next(name for name, outcomes in _SHARES.items() if outcomes == slo.outcomes)
        what, limit = f"{STATUSES} {DIFFER}" if what == STATUSES else what, f"{100 * slo.limit:.12g}%"
    else:
        what = f"max {slo.metric}" if slo.percentile == 100 else f"p{slo.percentile:.12g} {slo.metric}"
        limit = duration_text(round(slo.limit))
    window = "" if slo.window_ns is None else f" over {duration_text(slo.window_ns)}"
    return f"{what}{of} {'<=' if slo.or_equal else '<'} {limit}{window}"


def _percentile(text: str, at: int, found: dict[str, str]) -> float | None:
    """Return the percentile of an objective; None for a share. Raise UsageError if it is neither."""
    what = found["WHAT"]
    if "NUMBER" not in found and what in _SHARES:
        return None
    if "NUMBER" not in found and what == "max":
        return 100.0
    number = _PERCENTILE.fullmatch(what + found.get("NUMBER", ""))
    if number is None:
        known = ("max", "p50", "p90", "p99", *_SHARES)
        raise _wrong(text, at, f"is neither a percentile nor a share{_guess(what, known)}")
    if not 0 < float(number[1]) <= 100:
        raise _wrong(text, at, "is not a percentile: it must be above 0 and at most 100")
    return float(number[1])


def _unexpected(text: str, error: UnexpectedInput) -> UsageError:
    could = {*(getattr(error, "expected", None) or ()), *(getattr(error, "allowed", None) or ())}
    symbol = next((name for name in _EXPECTED if name in could), "$END")
    token = getattr(error, "token", None)
    at = len(text.rstrip()) if token is not None and token.type == "$END" else error.pos_in_stream or 0
    return _wrong(text, at, f"found where {_EXPECTED[symbol]} is expected")


def _wrong(text: str, at: int, why: str) -> UsageError:
    rest = text[at:].split()
    what = repr(rest[0]) if rest else "the end"
    return UsageError(f"SLO {text!r}, column {at + 1}: {what} {why}", hint=f"write {FORMS}")


def _guess(word: str, known: Iterable[str]) -> str:
    found = nearest(word, known)
    return f" (did you mean {found}?)" if found else ""


def rows_of(slo: Slo, routes: Sequence[RouteStart]) -> list[int]:
    """Return the rows of the lanes' memory that an objective covers, by a route (`*` matches anything) or an action.

    The list is empty for an objective on all requests. Raise UsageError if the recording has no such route or action.
    """
    if not slo.route:
        return []
    names, actions = [*(route.name for route in routes), OTHER], [*(route.action for route in routes), ""]
    column = len(slo.text.partition('"')[0]) + 1
    found = first_naming(names, actions, [slo.route], [f"SLO {slo.text!r}, column {column}"])
    return [row for row, number in enumerate(found) if number == 0]


def evaluate(
    objectives: Sequence[Slo], measured: Measured, windows: Callable[[Slo], Iterable[Window]] = lambda _: ()
) -> list[SloOutcome]:
    """Evaluate each objective on a run; `windows` returns the windows of an objective.

    An objective without a value fails. A value that is a lower bound fails, too, because the true value may be
    higher.
    """
    return [
        _over_all(slo, measured) if slo.window_ns is None else _by_window(slo, windows(slo))
        for slo in objectives
    ]


def figure_name(objective: Slo) -> str:
    """Return the name of an objective's figure: `p99`, `max service`, `errors`."""
    if objective.percentile is None:
        return objective.text.partition("<")[0].partition(' of "')[0].strip()
    name = "max" if objective.percentile == 100 else f"p{objective.percentile:g}"
    return name if objective.metric == "response" else f"{name} {objective.metric}"


_DAMAGED = "a log of the run is damaged"


def words_of(outcome: SloOutcome) -> str:
    """Return the result of an objective in words: `is 312 ms in the worst window, at 40 s (3 of 51 fail)`."""
    held = outcome.windows
    if outcome.value is None:
        return f"has no value: {_DAMAGED if held is not None and held.damaged else 'nothing was measured'}"
    figure = format_share(outcome.value) if outcome.unit == "share" else format_latency(outcome.value)
    words = f"is {'≥' if outcome.at_least else ''}{figure}"
    if held is None:
        accepts_all = outcome.passed and outcome.unit == "share" and outcome.value >= outcome.limit == 1
        return f"{words}, and any share is accepted" if accepts_all and STATUSES in outcome.slo else words
    window = f"the worst window{' that can be read' if held.damaged else ''}"
    fail = f"{held.failed:,} of {held.count:,} fail" if held.failed else f"all {held.count:,} meet it"
    words = f"{words} in {window}, at {format_duration(round(held.worst_at_s * 1e9))} ({fail})"
    return f"{words}, and {_DAMAGED}" if held.damaged else words


def _over_all(slo: Slo, measured: Measured) -> SloOutcome:
    figure = _figure(slo, measured, slo.route)
    if figure is None:
        return SloOutcome(slo=slo.text, passed=False, value=None, limit=slo.limit, unit=slo.unit)
    value, at_least = figure
    return SloOutcome(
        slo=slo.text,
        passed=_holds(slo, *figure),
        value=value,
        limit=slo.limit,
        unit=slo.unit,
        at_least=at_least,
    )


def _by_window(slo: Slo, windows: Iterable[Window]) -> SloOutcome:
    """Return the outcome of an objective by window, with the value of the worst window.

    Windows in which nothing ended do not count. The objective fails if some windows cannot be read, because they may
    have missed it.
    """
    count, failed, worst, worst_s, is_whole = 0, 0, None, 0.0, True
    try:
        for start_s, figure in _figures(slo, windows):
            count, failed = count + 1, failed + (not _holds(slo, *figure))
            if worst is None or figure[::-1] > worst[::-1]:
                worst, worst_s = figure, start_s
    except InputError:
        is_whole = False
    value, at_least = worst or (None, False)
    return SloOutcome(
        slo=slo.text, passed=is_whole and count > 0 and not failed, value=value, limit=slo.limit, unit=slo.unit,
        at_least=at_least,
        windows=WindowsHeld(count=count, failed=failed, worst_at_s=worst_s, damaged=not is_whole),
    )  # fmt: skip


def missed_at(slo: Slo, windows: Iterable[Window]) -> list[float]:
    """Return the starts of the windows that miss an objective, in seconds since the start of the run."""
    return [start_s for start_s, figure in _figures(slo, windows) if not _holds(slo, *figure)]


def _figures(slo: Slo, windows: Iterable[Window]) -> Iterator[tuple[float, tuple[float, bool]]]:
    """Yield the start and the figure of each window in which something ended."""
    for window in windows:
        figure = _figure(slo, window.measured, "")
        if figure is not None:
            yield window.start_s, figure


def _figure(slo: Slo, measured: Measured, route: str) -> tuple[float, bool] | None:
    """Return the value that the objective limits, and whether it is a lower bound; None if nothing was measured."""
    if slo.outcomes == (STATUSES,):
        count = measured.status_count(route)
        return (count.share, False) if count.is_known else None
    if slo.percentile is None:
        mismatches = slo.outcomes == _SHARES[MISMATCHES]
        share = measured.mismatched_share(route) if mismatches else measured.share_of(slo.outcomes, route)
        return None if share is None else (share, False)
    found = measured.percentiles(slo.metric, (slo.percentile,), route)
    return (float(found[0].ns), found[0].at_least) if found else None


def _holds(slo: Slo, value: float, at_least: bool) -> bool:
    """Return whether a value meets the objective.

    `statuses differ<100%` accepts any share, including 100%, so that it disables the default rule.
    """
    if slo.outcomes == (STATUSES,) and slo.limit >= 1:
        return True
    return not at_least and (value <= slo.limit if slo.or_equal else value < slo.limit)
