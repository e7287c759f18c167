"""Service level objectives: a sentence such as `p99<250ms`, parsed, and held against a run.

    slo      = what "<" limit          ("<=" as well)
    what     = percentile [metric] ["of" route] | share ["of" route]
    percentile = "p" number | "p(" number ")" | "max"
    metric   = "response" (the default) | "service" | "lateness" | "wait" | "first_byte"
    share    = "errors" | an outcome ("5xx", "timeout", "unsent", ...)
    route    = "..." in quotes
    limit    = a time (250ms) for latencies, a share (0.1%) for shares

`errors` are requests that a user would have seen fail: 5xx, no whole answer, no answer in time, never sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from replay_native.bank import OUTCOMES

from ..errors import UsageError
from ..units import nearest, parse_duration_ns, parse_share
from .document import SloOutcome
from .measured import FAILED, Measured

METRICS = ("response", "service", "lateness", "wait", "first_byte")
FORMS = 'p99<250ms, p50 service < 20ms, errors < 0.1%, or p(99) response of "POST /v1/users" < 250ms'

_TOKEN = re.compile(
    r'\s*(?:(?P<op><=|<)|(?P<open>\()|(?P<close>\))|"(?P<route>[^"]*)"|(?P<word>[^\s<>()"]+))'
)
_PERCENTILE = re.compile(r"p(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Slo:
    """One objective. `percentile` is None for a share of `outcomes`; `limit` is in ns or a share."""

    text: str
    limit: float
    or_equal: bool
    metric: str = "response"
    percentile: float | None = None
    outcomes: tuple[str, ...] = ()
    route: str = ""

    @property
    def unit(self) -> Literal["ns", "share"]:
        """What `limit` counts."""
        return "share" if self.percentile is None else "ns"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


class _Reader:
    """The tokens of one objective, and where they stand."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[_Token] = []
        self.at = 0
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise self.wrong(len(text) - len(text[position:].lstrip()), "is not understood")
            kind = match.lastgroup
            self.tokens.append(_Token(kind, match.group(kind), match.start(kind) - (kind == "route")))
            position = match.end()

    def wrong(self, column: int, why: str) -> UsageError:
        rest = self.text[column:].split()
        what = repr(rest[0]) if rest else "the end"
        return UsageError(f"SLO {self.text!r}, column {column + 1}: {what} {why}", hint=f"write {FORMS}")

    def peek(self) -> _Token:
        return (
            self.tokens[self.at] if self.at < len(self.tokens) else _Token("end", "", len(self.text.rstrip()))
        )

    def take(self, kind: str, expected: str) -> _Token:
        token = self.peek()
        if token.kind != kind:
            raise self.wrong(token.column, f"stands where {expected} should")
        self.at += 1
        return token


def parse(text: str) -> Slo:
    """An objective from its text. UsageError names the column and what would have been right."""
    reader = _Reader(text)
    first = reader.take("word", "a percentile (p99) or a share (errors)")
    percentile, outcomes = _what(reader, first)
    metric = "response"
    if percentile is not None and reader.peek().kind == "word" and reader.peek().text != "of":
        token = reader.take("word", "a metric")
        if token.text not in METRICS:
            raise reader.wrong(
                token.column, f"is no metric{_guess(token.text, METRICS)}; there are {', '.join(METRICS)}"
            )
        metric = token.text
    route = ""
    if reader.peek().text == "of":
        reader.take("word", "of")
        route = reader.take("route", "a route in double quotes").text
        if percentile is not None and metric not in ("response", "service"):
            raise reader.wrong(
                first.column, f"asks for {metric} of a route, which is measured over all routes only"
            )
    operator = reader.take("op", "'<'")
    limit = reader.take("word", "a limit")
    if reader.peek().kind != "end":
        raise reader.wrong(reader.peek().column, "stands after the end")
    try:
        value = float(parse_share(limit.text) if percentile is None else parse_duration_ns(limit.text))
    except UsageError as error:
        raise UsageError(f"SLO {text!r}, column {limit.column + 1}: {error}", hint=error.hint) from None
    return Slo(text.strip(), value, operator.text == "<=", metric, percentile, outcomes, route)


def _what(reader: _Reader, first: _Token) -> tuple[float | None, tuple[str, ...]]:
    if first.text == "errors":
        return None, FAILED
    if first.text in OUTCOMES:
        return None, (first.text,)
    if first.text == "max":
        return 100.0, ()
    number = ""
    if first.text == "p" and reader.peek().kind == "open":
        reader.take("open", "'('")
        number = reader.take("word", "a percentile").text
        reader.take("close", "')'")
    elif match := _PERCENTILE.fullmatch(first.text):
        number = match.group(1)
    if not re.fullmatch(r"\d+(\.\d+)?", number):
        known = ("errors", "max", "p50", "p90", "p99", *OUTCOMES)
        raise reader.wrong(first.column, f"is neither a percentile nor a share{_guess(first.text, known)}")
    if not 0 < float(number) <= 100:
        raise reader.wrong(first.column, "is no percentile: it must be above 0 and at most 100")
    return float(number), ()


def _guess(word: str, known: Sequence[str]) -> str:
    found = nearest(word, known)
    return f" (did you mean {found}?)" if found else ""


def evaluate(objectives: Sequence[Slo], measured: Measured) -> list[SloOutcome]:
    """Each objective against a run. One that nothing was measured for fails, and so does a lower bound: it
    may be anything above.
    """
    return [_evaluate(slo, measured) for slo in objectives]


def _evaluate(slo: Slo, measured: Measured) -> SloOutcome:
    at_least, value = False, None
    if slo.percentile is None:
        value = measured.share_of(slo.outcomes, slo.route)
    elif found := measured.percentiles(slo.metric, (slo.percentile,), slo.route):
        value, at_least = float(found[0].ns), found[0].at_least
    passed = (
        value is not None and not at_least and (value <= slo.limit if slo.or_equal else value < slo.limit)
    )
    return SloOutcome(
        slo=slo.text, passed=passed, value=value, limit=slo.limit, unit=slo.unit, at_least=at_least
    )
