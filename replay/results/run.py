"""A finished run as commands and programs read it: its document, its histograms on demand, its seconds as a table."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from replay.decoding import examined
from replay.errors import InputError, UsageError, reason_of
from replay.files import read_whole
from replay.ledger.catalog import ALIASES, HISTOGRAMS, PER_ROUTE
from replay.naming import named_by
from replay.shown import html_table, shown
from replay.units import counted, format_latency, format_share

from .document import Latency, RunDocument, refuse_newer
from .folder import DOCUMENT_BYTES_MAX, RunFolder, read_rows
from .measured import Measured, from_folder
from .samples import Lookup, Sample
from .timeline import Second
from .verdicts import verdict_word

if TYPE_CHECKING:
    import pyarrow as pa

    from replay.ledger.hdr_package import RunHistogram

HTML_ROUTES = 10
"""Maximum number of routes in the table that a notebook shows for a run."""


@dataclass(frozen=True, repr=False)
class Run:
    """A complete run.

    `recovered`: the run was killed, and opening it completed its folder. Where a method accepts a `route`, it can be
    a route of the recording, a pattern (`GET /users/*`) or a business action.
    """

    folder: RunFolder
    document: RunDocument
    recovered: bool = False

    @cached_property
    def measured(self) -> Measured:
        """The histograms of totals.hlog, each decoded when it is needed."""
        return from_folder(self.folder, self.document)

    @property
    def verdict(self) -> str:
        """The run in one word: VALID, SUSPECT, INVALID, FAILED, or how the run was cut off.

        INVALID means that the run shows nothing about the target, usually because the generator was at its limit.
        FAILED means that the target failed.
        """
        document = self.document
        failed = (document.status_differs is not None and document.status_differs.failed) or not all(
            outcome.passed for outcome in document.slo
        )
        return verdict_word(document.ending.how, document.validity.verdict, failed=failed)

    def latency(self, name: str = "response", *, route: str = "") -> Latency:
        """Return the figures of a latency: response, service, wait, generator lag ("lateness") and so on.

        They cover all routes, or one. Raise UsageError if the run does not have the latency; a closed loop has only
        `service`, `first_byte` and TLS handshakes.
        """
        kind = self._kind(name, route)
        if route:
            found = self.measured.latency(kind, route)
        else:
            found = getattr(self.document.latency, kind.replace(".", "_"), None)
        if not isinstance(found, Latency):
            raise self._not_measured(name, route)
        return found

    def histogram(self, name: str = "response", *, route: str = "") -> RunHistogram:
        """Return the histogram behind `latency`, as an object of the `hdrhistogram` package, in ns.

        It has 3 significant digits over all routes, and 2 for one route. Its percentiles equal those in the run's
        reports. Raise UsageError as `latency` does.
        """
        from replay.ledger.hdr_package import RunHistogram

        kind = self._kind(name, route)
        found = self.measured.histogram(kind, route)
        if found is None or not found.count:
            raise self._not_measured(name, route)
        histogram, censored = found, self.measured.is_censored(kind, route)
        return RunHistogram(histogram, lambda ns: self.measured.value(ns, histogram, censored).ns)

    def percentiles(self, *names: str, route: str = "") -> pa.Table:
        """Return percentiles of latencies as an Arrow table, over all routes or of one.

        The columns are `percentile`, and one in ns for each of `names` (by default response and service, in a closed
        loop service). Raise UsageError as `latency` does.
        """
        from .tables import percentiles_table

        usual = ("service",) if self.document.closed_loop else ("response", "service")
        kinds = {name: self._kind(name, route) for name in names or usual}
        for name, kind in kinds.items():
            if self.measured.percentiles(kind, (50.0,), route) is None:
                raise self._not_measured(name, route)
        return percentiles_table(self.measured, kinds, route)

    def _kind(self, name: str, route: str) -> str:
        """Return the kind of histogram with this name.

        Raise UsageError if the route is unknown, or has no histogram of this name.
        """
        kind = ALIASES.get(name, name)
        kind = next((row.name for row in HISTOGRAMS if kind in (row.name, row.field)), kind)
        if route:
            rows = self.document.routes
            named_by([row.route for row in rows], [row.action for row in rows], route, "route")
            if kind not in PER_ROUTE:
                raise UsageError(
                    f"{name} is measured over all routes only",
                    hint=f"by route there are {' and '.join(PER_ROUTE)}",
                )
        return kind

    def _not_measured(self, name: str, route: str) -> UsageError:
        latencies = self.document.latency
        there = [
            field for field in latencies.__struct_fields__ if isinstance(getattr(latencies, field), Latency)
        ]
        of = f" of {route!r}" if route else ""
        return UsageError(
            f"the run measured no {name!r}{of}", hint=f"over all routes it measured {', '.join(there)}"
        )

    def timeline(self) -> pa.Table:
        """Return one row per second of the run, as an Arrow table (`.to_pandas()`).

        The columns are `at` in UTC, counts, percentiles in ns (null if nothing ended), one for each outcome
        (`outcomes.2xx`), one for each partition's consumer lag (`lag.`), and those of watched figures and business
        actions.
        """
        from .tables import timeline_table

        return timeline_table(self.seconds())

    def seconds(self) -> list[Second]:
        """Return the rows of timeline.jsonl, without an incomplete last row."""
        return read_rows(self.folder.timeline, Second)

    def assert_slo(self, *objectives: str) -> None:
        """Raise AssertionError unless the run proves each objective.

        Objectives are texts such as `p99<250ms`, `p99 service of "GET /users/*" < 100ms` or `errors<1%`. The error
        shows the figure, the limit, the number of requests, the route, and the run folder. A run proves nothing, and
        fails too, if it is INVALID, did not end normally, or failed by its statuses. Raise UsageError for an invalid
        objective, and for one by window or on statuses that was no objective of the run.
        """
        from .proof import failed_proof

        __tracebackhide__ = True
        if failure := failed_proof(self.document, self.measured, objectives):
            raise AssertionError(f"{failure}\n  verdict: {self.verdict}\n  run:     {self.folder.path}")

    def samples(self) -> list[Sample]:
        """Return the sampled requests by route: the slowest, the first failed, the first with a failed check."""
        return read_rows(self.folder.samples, Sample)

    def _head(self) -> list[tuple[str, str]]:
        """Return a summary as (name, value) pairs: verdict, target, requests, latency."""
        document, latency = self.document, self._shown_latency()
        sent = counted(document.accounts.sent, "request")
        rows = [("verdict", self.verdict), ("target", document.target), ("sent", sent)]
        if latency is not None:
            rows += [(name, _figure(latency, f"{name}_ns")) for name in ("p50", "p99")]
        return rows

    def _shown_latency(self) -> Latency | None:
        found = getattr(self.document.latency, "service" if self.document.closed_loop else "response", None)
        return found if isinstance(found, Latency) and found.count else None

    def __repr__(self) -> str:
        verdict, _, sent, *figures = (f"{name} {value}" for name, value in self._head())
        words = [verdict.removeprefix("verdict "), sent.removeprefix("sent ") + " sent", *figures]
        return f"<Run {shown(str(self.folder.path))!r}: {', '.join(words)}>"

    def _repr_html_(self) -> str:
        """Return the view in a notebook: the head of the report, its objectives and its busiest routes."""
        document = self.document
        rows = [*self._head(), ("folder", str(self.folder.path))]
        rows += [(reason.code, reason.message) for reason in document.validity.reasons]
        rows += [(outcome.slo, "met" if outcome.passed else "missed") for outcome in document.slo]
        biggest = sorted(document.routes, key=lambda row: -row.count)[:HTML_ROUTES]
        by_route = [
            (row.route, f"{row.count:,}", format_share(row.share), *_pair(row.response or row.service))
            for row in biggest
        ]
        heads = ("route", "requests", "share", "p50", "p99")
        return html_table("Run", (), rows) + html_table("Routes", heads, by_route)


def _figure(latency: Latency, name: str) -> str:
    return ("≥" if name in latency.at_least else "") + format_latency(getattr(latency, name))


def _pair(latency: Latency | None) -> tuple[str, str]:
    return ("", "") if latency is None else (_figure(latency, "p50_ns"), _figure(latency, "p99_ns"))


def load_run(path: str | os.PathLike[str], lookup: Lookup | None = None) -> Run:
    """Open the folder of a run, and complete it first if the run was killed.

    Raise InputError if the folder is invalid, if the run is still in progress, or if a newer version of replay wrote
    the folder.
    """
    folder = RunFolder.open(path)
    recovered = not folder.is_whole
    if recovered:
        from .recover import recover  # Only a killed run needs the lanes' memory, and with it Numba.

        recover(folder, lookup)
    try:
        data = read_whole(folder.run, DOCUMENT_BYTES_MAX)
        refuse_newer(folder.run, data)
        return Run(folder, msgspec.json.decode(data, type=examined(RunDocument)), recovered)
    except OSError as error:
        raise InputError(f"{folder.run} cannot be read: {reason_of(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{folder.run} is not the document of a run: {error}") from None
