"""A service level objective as it is written: `p99<250ms`, `errors<1%`, `POST /login: service.p95 < 1s`."""

from __future__ import annotations

import re
from typing import NamedTuple

from . import units
from .errors import UsageError

HISTOGRAMS = ("response", "service", "wait", "lateness")
SHARES = ("errors", "timeouts", "unsent", "4xx", "5xx")
"""Shares of the planned requests. `errors` is every request without a whole answer, and every 5xx."""

SLO_FORMS = (
    "p99<250ms, max<2s, service.p95<=100ms, errors<1%, 5xx<0.1%, or with a route: 'POST /login: p99<250ms'"
)

_SLO = re.compile(r"(?:(?P<route>\S.*?)\s*:\s+)?(?P<figure>[\w.]+)\s*(?P<sign><=?)\s*(?P<bound>[^<>=]+)")
_LATENCY = re.compile(rf"(?:({'|'.join(HISTOGRAMS)})\.)?(p(\d{{1,2}}(?:\.\d{{1,4}})?|100)|mean|max)")


class Slo(NamedTuple):
    """One objective. `figure` is `p99`, `mean` or `max` (of `histogram`, in ns), or one of SHARES.

    `quantile` is 0 to 100 for a percentile, -1 otherwise; `route` is empty for all routes together.
    """

    text: str
    histogram: str
    figure: str
    quantile: float
    bound: float
    inclusive: bool
    route: str

    def holds(self, value: float) -> bool:
        """Whether a measured value (ns, or a share from 0 to 1) keeps the objective."""
        return value <= self.bound if self.inclusive else value < self.bound

    def format(self, value: float) -> str:
        """A value of this objective's kind, for people."""
        return units.format_latency(value) if self.histogram else units.format_share(value)


def parse_slo(text: str) -> Slo:
    """Read one objective. UsageError names what is wrong in it, and the nearest right figure."""
    match = _SLO.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not an objective", hint=f"write {SLO_FORMS}")
    latency = _LATENCY.fullmatch(match["figure"])
    if latency is None and match["figure"] not in SHARES:
        raise _unknown(text, match["figure"])
    histogram, figure, quantile = latency.groups() if latency else ("", match["figure"], None)
    if latency and not match["bound"].strip()[-1].isalpha():
        raise UsageError(
            f"in the objective {text!r}: {match['bound']!r} has no unit", hint=f"write {SLO_FORMS}"
        )
    try:
        bound = units.parse_duration_ns(match["bound"]) if latency else units.parse_share(match["bound"])
    except UsageError as error:
        raise UsageError(f"in the objective {text!r}: {error}", hint=error.hint) from None
    return Slo(
        text=text.strip(),
        histogram=(histogram or "response") if latency else "",
        figure=figure,
        quantile=float(quantile) if quantile else -1.0,
        bound=bound,
        inclusive=match["sign"] == "<=",
        route=match["route"] or "",
    )


def _unknown(text: str, figure: str) -> UsageError:
    known = [*SHARES, "mean", "max", "p50", "p90", "p99", "p99.9", *(f"{name}.p99" for name in HISTOGRAMS)]
    guess = units.nearest(figure, known)
    return UsageError(
        f"in the objective {text!r}: the figure {figure!r} is unknown"
        + (f" (did you mean {guess}?)" if guess else ""),
        hint=f"write {SLO_FORMS}",
    )
