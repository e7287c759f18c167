"""The figures of a trace, as `replay inspect` shows them and as its `--json` document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import msgspec

from replay import units
from replay.shown import html_table, shown

from .body_summary import BodySummary, summarize_bodies
from .examples import examples
from .manifest import Route
from .reader import Trace
from .summary import Summary, Took, summarize

SAFE_METHODS = frozenset({"GET", "HEAD"})
"""Methods that a replay sends by default. Others are sent only if the scenario's `methods` allows them."""

HTML_ROUTES = 10
"""Maximum number of routes in the table that a notebook shows."""


@dataclass(frozen=True, repr=False)
class Inspection:
    """A trace and its figures; `document` contains all of them."""

    trace: Trace
    summary: Summary
    bodies: BodySummary

    @property
    def skipped(self) -> dict[str, int]:
        """Return the number of requests per method that a replay skips unless the scenario's `methods` allows them."""
        return {method: rows for method, rows in self.summary.methods.items() if method not in SAFE_METHODS}

    def by_share(self) -> list[tuple[Route, Took | None]]:
        """Return the routes and their recorded latencies, the most frequent route first.

        The manifest of a transformed trace may list its routes in another order.
        """
        pairs = zip_longest(self.trace.manifest.routes, self.summary.took_by_route)
        return sorted(pairs, key=lambda pair: -pair[0].rows)

    @property
    def document(self) -> dict[str, Any]:
        """Return the figures as a document for scripts; rates are requests per second."""
        trace, manifest, summary, bodies = self.trace, self.trace.manifest, self.summary, self.bodies
        peaks = {f"peak_{window}s": rate for window, rate in summary.peaks_per_s.items()}
        document = {
            "rows": summary.rows,
            "start_ns": trace.start_ns,
            "span_ns": summary.span_ns,
            "rate": {"mean": summary.mean_per_s, **peaks},
            "clients": manifest.clients,
            "requests": manifest.requests,
            "routes": [_route(route, took) for route, took in self.by_share()],
            "actions": [
                {
                    "action": name,
                    "rows": sum(route.rows for route in routes),
                    "routes": [r.route for r in routes],
                }
                for name, routes in manifest.actions().items()
            ],
            "routes_folded": manifest.routes_folded,
            "by_hour": summary.by_hour,
            "methods": summary.methods,
            "statuses": {
                "unknown" if status < 0 else str(status): rows for status, rows in summary.statuses.items()
            },
            "skipped": self.skipped,
            "lines": manifest.lines,
            "rejected": manifest.rejected,
            "left_out": [file.name for file in manifest.left_out],
            "resolution_ns": manifest.resolution_ns,
            "stamp": manifest.stamp,
            "time_zone": manifest.time_zone,
            "assumptions": manifest.assumptions,
            "unknown_values": manifest.unknown_values,
            "checksums": trace.has_checksums,
            "examples": examples(trace, units.parse_zone(manifest.time_zone or "UTC")),
            "history": manifest.history,
            "bodies": {
                "requests": bodies.requests,
                "distinct": bodies.distinct,
                "bytes": bodies.bytes,
                "types": bodies.types,
            },
            "responses": {
                "requests": bodies.responses,
                "bodies": bodies.response_bodies,
                "bodies_cut": bodies.response_bodies_cut,
                "types": bodies.response_types,
            },
        }
        plain: dict[str, Any] = msgspec.to_builtins(document)
        return plain

    def _facts(self) -> list[tuple[str, str]]:
        summary = self.summary
        peaks = (f"{units.format_rate(rate)} over {window} s" for window, rate in summary.peaks_per_s.items())
        statuses = (
            f"{'unknown' if status < 0 else status} {units.format_share(rows / max(summary.rows, 1))}"
            for status, rows in summary.statuses.items()
        )
        return [
            ("requests", f"{summary.rows:,}"),
            ("span", units.format_duration(summary.span_ns)),
            ("rate", f"{units.format_rate(summary.mean_per_s)} on average"),
            ("peaks", " · ".join(peaks)),
            ("statuses", " · ".join(statuses)),
        ]

    def __repr__(self) -> str:
        words = ", ".join(f"{name} {value}" for name, value in self._facts()[:3])
        return f"<Inspection of {shown(str(self.trace.path))!r}: {words}>"

    def _repr_html_(self) -> str:
        """Return the figures and the largest routes with their recorded latencies as HTML, for notebooks."""
        routes = [
            (route.route, f"{route.rows:,}", *_times(took)) for route, took in self.by_share()[:HTML_ROUTES]
        ]
        heads = ("route", "requests", "recorded p50", "recorded p99")
        return html_table(str(self.trace.path), (), self._facts()) + html_table("Routes", heads, routes)


def inspect(trace: Trace) -> Inspection:
    """Read a trace and return its figures. Raises InputError if it is damaged."""
    return Inspection(trace, summarize(trace), summarize_bodies(trace))


def _times(took: Took | None) -> tuple[str, str]:
    if took is None:
        return "", ""
    return units.format_duration(took.p50_ns), units.format_duration(took.p99_ns)


def _route(route: Route, took: Took | None) -> Mapping[str, Any]:
    """Return a route's entry in the document, without the facts that are unknown."""
    entry: dict[str, Any] = {"route": route.route, "rows": route.rows}
    if route.action:
        entry["action"] = route.action
    if took is not None:
        entry["recorded"] = {"count": took.count, "p50_ns": took.p50_ns, "p99_ns": took.p99_ns}
    return entry
