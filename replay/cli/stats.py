"""The fidelity figures of `replay inspect --stats`, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from replay import units
from replay.report.console import Console, Table
from replay.trace import Trace
from replay.workload.fidelity import (
    WINDOWS_NS,
    Dispersion,
    Fidelity,
    distance,
    expected,
    measure,
    steps_between,
)

from .import_ import facts

Expected = dict[str, tuple[float, float]]

TRUE_WITHIN = 0.10
"""The largest relative difference between the IDC of a window and its expected value at which a trace is `true`."""


class Stats:
    """The fidelity figures of a trace, and those of the trace that it is compared with."""

    def __init__(self, trace: Trace, against: Trace | None) -> None:
        self.figures = measure(trace)
        self.other = None if against is None else measure(against)
        self.steps = None if against is None else steps_between(against, trace)
        self.expected: Expected = {}
        if against is not None and self.steps is not None:
            self.expected = expected(against, self.steps)

    def as_json(self) -> dict[str, Any]:
        """Return the figures for scripts.

        IDC and beta are by window. Null means unknown: the trace is too short, its timestamps are too coarse, or no value
        can be expected.
        """
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
            data["idc_off"] = {window: self._off(window) for window in WINDOWS_NS}
            data["true_within"] = TRUE_WITHIN
            data["true"] = {window: self._is_true(window) for window in WINDOWS_NS}
        return data

    def _off(self, window: str) -> float | None:
        """Return the relative error of the IDC in a window; None if the actual or the expected value is unknown."""
        found = self.figures.dispersion[window]
        if found is None or window not in self.expected:
            return None
        should_be = self.expected[window][0]
        return (found.idc - should_be) / max(abs(should_be), 1e-9)

    def _is_true(self, window: str) -> bool | None:
        off = self._off(window)
        return None if off is None else abs(off) <= TRUE_WITHIN

    def print(self, console: Console) -> None:
        """Print the figures as tables."""
        console.print()
        console.print(self._windows())
        console.print()
        table = facts()
        for name, value in self._facts():
            table.add_row(name, value)
        console.print(table)

    def _windows(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="cyan")
        names = ["window", "IDC", "beta", "95% of beta"]
        if self.other is not None:
            names = ["window", "IDC", "should be", "off", "beta", "should be", "before", "95% of beta"]
        for name in names:
            table.add_column(name, justify="right")
        for window, found in self.figures.dispersion.items():
            idc, beta, interval = _cells(found)
            cells = [idc, beta, interval]
            if self.other is not None:
                idc_expected, beta_expected = self._expected_cells(window)
                before = self.other.dispersion[window]
                was = "-" if before is None else _fixed(before.beta)
                cells = [idc, idc_expected, _signed(self._off(window)), beta, beta_expected, was, interval]
            table.add_row(window.replace("s", " s"), *cells)
        return table

    def _expected_cells(self, window: str) -> tuple[str, str]:
        """Return the expected values of IDC and beta as text."""
        if window not in self.expected:
            return "-", "-"
        idc, beta = self.expected[window]
        return units.format_number(idc), _fixed(beta)

    def _truth(self) -> str:
        """Return the windows in which the trace is as bursty as expected, and the other windows, as text."""
        judged = {window.replace("s", " s"): self._off(window) for window in WINDOWS_NS}
        known = {window: off for window, off in judged.items() if off is not None}
        bound = f"(IDC within {units.format_share(TRUE_WITHIN)} of the expected value)"
        if not known:
            return "no window can be judged: the trace is too short, or its timestamps are too coarse"
        true = [window for window, off in known.items() if abs(off) <= TRUE_WITHIN]
        wrong = [f"{window} ({_signed(off)})" for window, off in known.items() if abs(off) > TRUE_WITHIN]
        parts = [f"in windows of {', '.join(true)}"] if true else ["in no window"]
        if wrong:
            parts.append(f"not of {', '.join(wrong)}")
        return f"{'; '.join(parts)} {bound}"

    def _facts(self) -> list[tuple[str, str]]:
        figures = self.figures
        rows = [
            ("beta", "relative variance of the bursts: 0 is Poisson; scaling and sampling do not change it")
        ]
        if self.other is not None and self.steps is None:
            rows.append(("should be", "unknown: the trace was not made from the other one"))
        elif self.other is not None and not self.expected:
            rows.append(("should be", "unknown: a window, or a factor for some routes, changes it"))
        elif self.other is not None:
            rows.append(("true", self._truth()))
        if figures.gap_cv is not None and figures.gap_lag_1 is not None:
            rows.append(
                ("gaps", f"CV {figures.gap_cv:.2f}, correlation of neighbours {_fixed(figures.gap_lag_1)}")
            )
        if figures.hurst is not None and figures.hurst_r2 is not None:
            rows.append(("Hurst", f"{figures.hurst:.2f} (R² of the fit {figures.hurst_r2:.2f})"))
        rows.append(
            (
                "sessions",
                f"{figures.sessions:,}, at most {figures.sessions_at_once:,} at once,"
                f" {units.format_number(figures.requests_a_session)} requests each on average",
            )
        )
        zipf = "" if figures.zipf_exponent is None else f"Zipf exponent {figures.zipf_exponent:.2f}, "
        share = units.format_share(figures.top_percent_share)
        rows.append(("popularity", f"{zipf}the most frequent 1% of distinct requests are {share} of all"))
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


def _signed(share: float | None) -> str:
    """Format a relative error in percent."""
    return "-" if share is None else f"{100 * share + 0.0:+.0f}%"


def _fixed(value: float) -> str:
    """Format a value with two decimals, and without a sign if it rounds to 0."""
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
