"""The fidelity figures of `replay inspect --stats`: on a screen, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .. import units
from ..report.console import Console, Table
from ..trace import Trace
from ..workload.fidelity import WINDOWS_NS, Dispersion, Fidelity, distance, expected, measure, steps_between
from .import_ import facts

Expected = dict[str, tuple[float, float]]


class Stats:
    """The figures of a trace, and of another one that it is held against."""

    def __init__(self, trace: Trace, against: Trace | None) -> None:
        self.figures = measure(trace)
        self.other = None if against is None else measure(against)
        self.steps = None if against is None else steps_between(against, trace)
        self.expected: Expected = {}
        if against is not None and self.steps is not None:
            self.expected = expected(against, self.steps)

    def as_json(self) -> dict[str, Any]:
        """For scripts. IDC and beta are by window; null: the trace is too short, or its stamps too coarse."""
        data = _figures(self.figures)
        if self.other is not None:
            data["against"] = _figures(self.other)
            data["distance"] = asdict(distance(self.figures, self.other))
            data["steps"] = self.steps
            for place, name in enumerate(("idc", "beta")):
                data[f"{name}_expected"] = {
                    window: self.expected[window][place] if window in self.expected else None
                    for window in WINDOWS_NS
                }
        return data

    def print(self, console: Console) -> None:
        """Tables for people."""
        console.print()
        console.print(self._windows())
        console.print()
        table = facts()
        for name, value in self._facts():
            table.add_row(name, value)
        console.print(table)

    def _windows(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="cyan")
        table.add_column("window", justify="right")
        names = ["IDC", "beta", "95% of beta"]
        names += ["should be", "before"] if self.other is not None else []
        for name in names:
            table.add_column(name, justify="right")
        for window, found in self.figures.dispersion.items():
            cells = [window.replace("s", " s"), *_cells(found)]
            if self.other is not None:
                before = self.other.dispersion[window]
                cells.append(_fixed(self.expected[window][1]) if window in self.expected else "-")
                cells.append("-" if before is None else _fixed(before.beta))
            table.add_row(*cells)
        return table

    def _facts(self) -> list[tuple[str, str]]:
        figures = self.figures
        rows = [
            ("beta", "relative variance of the bursts: 0 is Poisson; scaling and sampling leave it alone")
        ]
        if self.other is not None and self.steps is None:
            rows.append(("should be", "unknown: the trace was not made of the other one"))
        elif self.other is not None and not self.expected:
            rows.append(("should be", "no formula says: a window, or a factor of some routes, is in between"))
        if figures.gap_cv is not None and figures.gap_lag_1 is not None:
            rows.append(
                ("gaps", f"CV {figures.gap_cv:.2f}, correlation of neighbours {_fixed(figures.gap_lag_1)}")
            )
        if figures.hurst is not None and figures.hurst_r2 is not None:
            rows.append(("Hurst", f"{figures.hurst:.2f} (R² of the fit {figures.hurst_r2:.2f})"))
        rows.append(
            (
                "sessions",
                f"{figures.sessions:,}, {figures.sessions_at_once:,} at once,"
                f" {units.format_number(figures.requests_a_session)} requests each",
            )
        )
        zipf = "" if figures.zipf_exponent is None else f"Zipf exponent {figures.zipf_exponent:.2f}, "
        share = units.format_share(figures.top_percent_share)
        rows.append(("popularity", f"{zipf}the top 1% of the requests has {share}"))
        if self.other is not None:
            apart = distance(figures, self.other)
            rows.append(
                (
                    "apart",
                    f"gaps {apart.gaps_ks:.2f} (KS), rate over time {units.format_share(apart.curve)},"
                    f" routes {units.format_share(apart.routes)} (total variation)",
                )
            )
        return rows


def _cells(found: Dispersion | None) -> list[str]:
    if found is None:
        return ["-", "-", "-"]
    low, high = found.beta_interval
    return [units.format_number(found.idc), _fixed(found.beta), f"{_fixed(low)} to {_fixed(high)}"]


def _fixed(value: float) -> str:
    """Two decimals; what is rounded to nothing has no sign."""
    return f"{round(value, 2) + 0.0:.2f}"


def _figures(figures: Fidelity) -> dict[str, Any]:
    found = figures.dispersion
    data: dict[str, Any] = {
        "idc": {name: None if each is None else each.idc for name, each in found.items()},
        "beta": {name: None if each is None else each.beta for name, each in found.items()},
        "beta_interval": {name: None if each is None else each.beta_interval for name, each in found.items()},
    }
    for name in (
        "gap_cv", "gap_lag_1", "hurst", "hurst_r2", "sessions", "sessions_at_once", "requests_a_session",
        "zipf_exponent", "top_percent_share",
    ):  # fmt: skip
        data[name] = getattr(figures, name)
    return data
