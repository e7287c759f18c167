"""The indices of a lane's outcomes, histograms and counters, for kernels.

`replay.ledger.catalog` has one row with the meaning of each name here, and its import fails if a name has no row.
The descriptions are there because a change to this file's text makes the kernels compile again. To add a name, add
a field here and a row there (docs/adding.md). Fields may be added anywhere: the version of the memory's layout
follows from the names.
"""

from __future__ import annotations

from typing import NamedTuple


class OutcomeIndex(NamedTuple):
    """How a request ended.

    Complete responses come first, so that `outcome < REFUSED` tests for one. Outcomes from `status_5xx` on are
    failures for a user.
    """

    status_2xx: int
    status_3xx: int
    status_4xx: int
    status_5xx: int
    refused: int
    reset: int
    truncated: int
    malformed: int
    timeout: int
    generator: int
    unsent: int
    rejected: int
    tls: int


O = OutcomeIndex(*range(len(OutcomeIndex._fields)))
OUTCOMES = tuple(name.removeprefix("status_") for name in OutcomeIndex._fields)
"""Names of the outcomes in results."""

N_OUTCOMES = len(OUTCOMES)
REFUSED, RESET, TRUNCATED, MALFORMED = O.refused, O.reset, O.truncated, O.malformed
TIMEOUT, GENERATOR, UNSENT, REJECTED, TLS = O.timeout, O.generator, O.unsent, O.rejected, O.tls

FIRST_FAILED = O.status_5xx
"""The first outcome that counts as an error in objectives. Such requests are also kept as failed samples."""


class HistogramIndex(NamedTuple):
    """Histograms over all routes, with 3 significant digits.

    The last word of a name is the part after the dot of its tag.
    """

    response_all: int
    response_ok: int
    lateness_all: int
    wait_all: int
    wait_queue: int
    wait_connect: int
    service_all: int
    first_byte_all: int
    handshake_full: int
    handshake_resumed: int
    end_to_end_all: int
    answer_all: int
    wait_order: int
    response_net: int
    service_net: int
    response_arrived: int


T = HistogramIndex(*range(len(HistogramIndex._fields)))
TOTALS = tuple(".".join(name.rpartition("_")[::2]) for name in HistogramIndex._fields)
"""Tags of the histograms over all routes."""


class RouteHistogramIndex(NamedTuple):
    """Histograms by route and outcome, with 2 significant digits."""

    response: int
    service: int


R = RouteHistogramIndex(*range(len(RouteHistogramIndex._fields)))
PER_ROUTE = RouteHistogramIndex._fields
"""Names of the histograms by route and outcome."""


class CounterIndex(NamedTuple):
    """Counters of a lane, before those of its outcomes.

    The reason for which a request is not sent is the index of its `unsent_` counter.
    """

    planned: int
    sent: int
    ok: int
    error: int
    timeout: int
    in_flight: int
    unsent_max_wait: int
    unsent_interrupted: int
    unsent_limit: int
    unsent_capture: int
    unsent_own: int
    warm_up: int
    resent: int
    bytes_sent: int
    bytes_received: int
    connects: int
    connects_failed: int
    handshakes_full: int
    handshakes_resumed: int
    handshakes_failed: int
    closed_by_target: int
    open: int
    open_max: int
    waiting: int
    waiting_max: int
    cap_bound: int
    idle_closed: int
    attempts: int
    retries: int
    retried: int
    retries_denied: int
    underruns: int
    routes_merged: int
    slots_used: int
    informational: int
    answers_cut: int
    cookies_cut: int
    sends_postponed: int
    sends_postponed_ns: int
    dials_postponed: int
    dials_postponed_ns: int
    reads_late: int
    reads_late_ns: int
    gaps: int
    gaps_ns: int
    gap_max_ns: int
    lost_ns: int
    first_due_ns: int
    last_done_ns: int
    cpu_first_ns: int
    cpu_last_ns: int
    idle_ns: int
    loops: int


C = CounterIndex(*range(len(CounterIndex._fields)))
UNSENT_OF_TARGET = (C.unsent_max_wait, C.unsent_limit)
"""Reasons for which the target is to blame, except for the requests in `unsent_own`."""

FIRST_OUTCOME = len(CounterIndex._fields)
COUNTERS = (*CounterIndex._fields, *(f"outcome_{name}" for name in OUTCOMES))
"""Names of all counters: those of `C`, then one for each outcome."""

ACCOUNTS = tuple(
    "ok" if index < REFUSED else name if name in ("timeout", "unsent") else "error"
    for index, name in enumerate(OUTCOMES)
)
"""For each outcome, the account in which it is counted."""

ACCOUNT_COUNTERS = tuple(-1 if account == "unsent" else COUNTERS.index(account) for account in ACCOUNTS)
"""For each outcome, the counter of its account. Unsent requests have a counter for each reason instead (-1)."""

SAMPLES_KEPT = 20
"""The largest number of the slowest, of the failed and of the mismatched requests that a lane keeps per route."""
