"""The live view of a run: a small panel in a terminal, otherwise a line every few seconds."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from replay.ledger.catalog import GOOD, HISTOGRAMS, WITH_CONSUMER
from replay.plan.schedule import Plan
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.timeline import Second
from replay.shown import shown
from replay.units import format_duration, format_latency

from .fit import breaks, shortened
from .slow_routes import SlowRoutes

LAST_SECONDS = 5
"""How many seconds a shown percentile covers. It is the worst of these seconds."""

PLAIN_EVERY_S = 5.0
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_SECONDS = 60
"""How many seconds the chart shows."""

ROUTES_SHOWN, FAILURES_SHOWN = 3, 4
LABEL_COLUMNS, FIGURE_COLUMNS = 9, 10


class LiveView:
    """Shows each `Second` of a run when it arrives.

    It is a context manager, and a sink of the run (`replay.engine.sinks`).
    """

    name = "live view"
    noted = False
    """A slow terminal causes no note in the run."""

    every_total = False
    """It shows the timeline and the slowest routes. Other histograms need not be computed for it."""

    def __init__(self, console: Console, *plans: Plan) -> None:
        """Create the view from the plans of the run's targets."""
        self._console = console
        rows = [plan.rows for plan in plans]
        self._rows = None if None in rows else sum(count or 0 for count in rows)
        self._length_ns = max((plan.length_ns or 0 for plan in plans), default=0)
        self._totals: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._worse = 0
        self._minute: deque[Second] = deque(maxlen=SPARK_SECONDS)
        self._slow = SlowRoutes("response")
        self._elapsed_s = 0.0
        self._plain_due_s = PLAIN_EVERY_S
        can_move = console.is_terminal and not console.is_dumb_terminal
        self._live = self._new_live() if can_move else None
        self._size = console.size

    def _new_live(self) -> Live:
        return Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveView:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def start(self, started: Started) -> None:
        """Select the latency that decides which routes are slow: `service` in a closed loop, otherwise `response`."""
        self._slow = SlowRoutes("service" if started.closed_loop else "response")

    def second(self, second: Second, deltas: Deltas) -> None:
        """Show the figures of another second."""
        self._slow.take(second.t_s + second.length_s, deltas)
        self.update(second)

    def end(self, document: RunDocument) -> None:
        """Do nothing: the report shows the document."""

    def close(self) -> None:
        """Do nothing: the context manager releases the terminal."""

    def update(self, second: Second) -> None:
        """Add the figures of another second, and draw them, or print a line every PLAIN_EVERY_S."""
        self._elapsed_s = second.t_s + second.length_s
        self._minute.append(second)
        for name in ("planned", "sent", "ok", "error", "timeout", "unsent"):
            self._totals[name] += getattr(second, name)
        self._worse += second.status_worse
        for outcome, count in second.outcomes.items():
            if outcome not in GOOD:
                self._failures[outcome] += count
        if self._live:
            self._draw(self._live)
        elif self._elapsed_s >= self._plain_due_s:
            self._plain_due_s += PLAIN_EVERY_S
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _draw(self, live: Live) -> None:
        """Redraw the panel.

        After a resize the terminal may have rewrapped the old lines, so that their positions are unknown. The
        screen is then cleared.
        """
        if self._console.size != self._size:
            self._size = self._console.size
            live.stop()
            self._console.clear()
            self._live = live = self._new_live()
            live.start()
        live.update(self._panel(), refresh=True)

    def _share(self) -> float:
        if self._rows:
            return min(1.0, self._totals["planned"] / self._rows)
        if self._length_ns:
            return min(1.0, self._elapsed_s * 1e9 / self._length_ns)
        return 0.0

    def _worst(self, name: str) -> str:
        last = list(self._minute)[-LAST_SECONDS:]
        figures = [figure for second in last if (figure := second.figure_ns(name)) is not None]
        if not figures:
            return "-"
        worst_ns, is_bound = max(figures)
        return ("≥" if is_bound else "") + format_latency(worst_ns)

    def _left(self) -> str:
        if not self._length_ns:
            return ""
        left_s = int(self._length_ns / 1e9 - self._elapsed_s)
        return f"{format_duration(left_s * 10**9)} left" if left_s > 0 else "finishing"

    def _consumed(self) -> list[tuple[str, str]]:
        """Return the figures of a Kafka consumer; empty without one."""
        last = self._minute[-1]
        rows = [row for row in HISTOGRAMS if row.only == WITH_CONSUMER]
        kinds = [(f"{row.title} p99", self._worst(f"{row.field}_p99_ns")) for row in rows]
        found = [(name, worst) for name, worst in kinds if worst != "-"]
        return [*found, ("lag", f"{sum(last.lag.values()):,}")] if last.lag else found

    def _failed(self) -> str:
        parts = [f"{count:,} {name}" for name, count in self._failures.most_common(FAILURES_SHOWN)]
        more = sum(self._failures.values()) - sum(
            count for _, count in self._failures.most_common(FAILURES_SHOWN)
        )
        parts += [f"{more:,} others"] if more else []
        parts += [f"{self._worse:,} with a worse status than recorded"] if self._worse else []
        return ", ".join(parts) or "none"

    def _kind(self) -> str:
        """Return the latency to show: `response` if the chart's seconds have one, otherwise `service`."""
        return "response" if any(row.response_p50_ns is not None for row in self._minute) else "service"

    def _line(self) -> str:
        last, kind = self._minute[-1], self._kind()
        parts = [
            f"{self._elapsed_s:5.0f} s",
            f"{self._share():4.0%}",
            f"due {_rate(last.planned, last)}",
            f"sent {_rate(last.sent, last)}",
            f"in flight {last.in_flight:,}",
        ]
        if self._worst(f"{kind}_p50_ns") != "-":
            parts.append(f"{kind} p50 {self._worst(f'{kind}_p50_ns')} p99 {self._worst(f'{kind}_p99_ns')}")
        if last.lateness_p99_ns is not None:
            parts.append(f"generator lag p99 {self._worst('lateness_p99_ns')}")
        parts += [f"{name} {value}" for name, value in self._consumed()]
        parts += [f"failed {self._failed()}", self._left()]
        return "  ".join(part for part in parts if part)

    def _panel(self) -> _Panel:
        """Return the panel for the current second."""
        last, kind, rows = self._minute[-1], self._kind(), list(self._minute)
        curves = [
            ("sent", [row.sent / max(row.length_s, 1e-3) for row in rows], _rate(last.sent, last)),
            *(
                (
                    f"{kind[:4]} {name}",
                    [getattr(row, f"{kind}_{name}_ns") for row in rows],
                    self._worst(f"{kind}_{name}_ns"),
                )
                for name in ("p50", "p99")
            ),
        ]
        now = [
            f"due {_rate(last.planned, last)}",
            f"in flight {last.in_flight:,}",
            f"waiting {last.waiting:,}",
        ]
        now += [f"sockets {last.open:,}"]
        own = [f"generator lag p99 {self._worst('lateness_p99_ns')}"] if kind == "response" else []
        own += [f"service p99 {self._worst('service_p99_ns')}"] if kind == "response" else []
        own += [f"{name} {value}" for name, value in self._consumed()]
        facts = (
            [("now", " · ".join(now), ""), ("", " · ".join(own), "")]
            if own
            else [("now", " · ".join(now), "")]
        )
        facts.append(("failed", self._failed(), "red" if self._failures or self._worse else "green"))
        slowest = self._slow.first(ROUTES_SHOWN)
        return _Panel(self._share(), self._left(), curves, facts, slowest)


def _rate(count: int, second: Second) -> str:
    return f"{count / max(second.length_s, 1e-3):,.0f}/s"


@dataclass(frozen=True)
class _Panel:
    """The current figures, which are laid out when they are drawn, because the terminal's width may have changed."""

    share: float
    left: str
    curves: Sequence[tuple[str, Sequence[float | None], str]]
    facts: Sequence[tuple[str, str, str]]
    slowest: Sequence[tuple[str, int]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = list(self._lines(max(options.max_width - 1, 12)))
        room = options.size.height
        yield Text("\n").join(lines[: max(room - 1, 3)])

    def _lines(self, width: int) -> Iterator[Text]:
        words = f" {self.share:.0%}  {self.left}".rstrip()
        bar = max(width - len(words), 4)
        done = round(self.share * bar)
        yield Text.assemble(("━" * done, "cyan"), ("━" * (bar - done), "dim"), (words, "bold"))
        for label, values, figure in self.curves:
            room = width - LABEL_COLUMNS - FIGURE_COLUMNS
            curve = sparkline(values, max(min(room, SPARK_SECONDS), 0))
            yield Text.assemble(
                (label.ljust(LABEL_COLUMNS), "dim"), (curve, "cyan"), (figure.rjust(FIGURE_COLUMNS), "bold")
            )
        for label, fact_words, style in self.facts:
            for number, (start, end) in enumerate(breaks(fact_words, max(width - LABEL_COLUMNS, 8))):
                name = label if number == 0 else ""
                yield Text.assemble((name.ljust(LABEL_COLUMNS), "dim"), (fact_words[start:end], style))
        for number, (route, ns) in enumerate(self.slowest):
            figure = f"p99 {format_latency(ns)}".rjust(FIGURE_COLUMNS + 4)
            room = width - LABEL_COLUMNS - len(figure)
            name = shortened(shown(route), max(room, 6)).ljust(max(room, 6))
            yield Text.assemble(
                (("slowest" if number == 0 else "").ljust(LABEL_COLUMNS), "dim"), name, figure
            )


def sparkline(values: Sequence[float | None], columns: int) -> str:
    """Return a bar chart of the latest values, one per column, scaled to the highest. A missing value is blank."""
    shown_values = list(values)[-columns:] if columns else []
    top = max((value for value in shown_values if value), default=0.0)
    made = "".join(
        " " if value is None else SPARKS[round(value / top * (len(SPARKS) - 1))] if top else SPARKS[0]
        for value in shown_values
    )
    return made.rjust(columns)
