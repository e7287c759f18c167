"""The metrics of a run under the names that sinks export (Prometheus, OpenTelemetry), derived from the catalog."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .catalog import COUNTERS, HISTOGRAMS, OUTCOMES, UNSENT_REASONS


class Metric(NamedTuple):
    """A metric in its base unit, as sinks export it.

    Each combination of values of its `labels` is a series. `tag` is the tag of the histogram that it exports.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    tag: str = ""


UNSENT_METRIC = "replay_unsent_total"
RESPONSES_METRIC = "replay_responses_total"
ERRORS_METRIC = "replay_errors_total"


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]


METRICS = (
    Metric("replay_planned", "gauge", "Requests that the run will send"),
    *(
        Metric(counter.metric, "counter", _sentence(counter.words), counter.unit)
        for counter in COUNTERS
        if counter.metric
    ),
    Metric(UNSENT_METRIC, "counter", "Requests that were due but not sent", labels=("reason",)),
    Metric(RESPONSES_METRIC, "counter", "Requests with a complete response", labels=("outcome", "status")),
    Metric(ERRORS_METRIC, "counter", "Requests without a complete response", labels=("outcome",)),
    *(
        Metric(histogram.metric, "histogram", _sentence(histogram.words), "seconds", tag=histogram.tag)
        for histogram in HISTOGRAMS
        if histogram.metric
    ),
)
"""The metrics of a run, for sinks that export them."""


class Series(NamedTuple):
    """A series of a metric, with the values of its labels and the lane's counter that it is read from."""

    metric: str
    labels: dict[str, str]
    counter: str


SERIES = (
    *(Series(counter.metric, {}, counter.name) for counter in COUNTERS if counter.metric),
    *(Series(UNSENT_METRIC, {"reason": reason.name}, reason.counter) for reason in UNSENT_REASONS),
    *(
        Series(RESPONSES_METRIC, {"outcome": "ok", "status": outcome.name}, outcome.counter)
        if outcome.account == "ok"
        else Series(ERRORS_METRIC, {"outcome": outcome.name}, outcome.counter)
        for outcome in OUTCOMES
        if outcome.account != "unsent"
    ),
)
"""All series of the metrics that export counters."""
