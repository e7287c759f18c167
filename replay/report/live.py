"""What a run shows while it goes: one small panel in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

from collections import Counter, deque
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from replay.ledger.catalog import GOOD, HISTOGRAMS, WITH_CONSUMER
from replay.plan.schedule import Plan
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.timeline import Second
from replay.units import format_duration, format_latency

from .console import Table

LAST_SECONDS = 5
"""Seconds that the latencies shown are of: the worst of their percentiles."""

PLAIN_EVERY_S = 5.0
SPARKS = " ▁▂▃▄▅▆▇█"
SPARK_SECONDS = 48


class LiveView:
    """Shows each `Second` of a run as it comes. A context manager, and a sink of the run (`replay.engine.sinks`)."""

    name = "live view"
    noted = False
    """A terminal that does not keep up is not worth a note of the run."""

    def __init__(self, console: Console, *plans: Plan) -> None:
        """`plans` are those of the run's targets."""
        self._console = console
        rows = [plan.rows for plan in plans]
        self._rows = None if None in rows else sum(count or 0 for count in rows)
        self._length_ns = max((plan.length_ns or 0 for plan in plans), default=0)
        self._totals: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._worse = 0
        self._last: deque[Second] = deque(maxlen=LAST_SECONDS)
        self._sent: deque[float] = deque(maxlen=SPARK_SECONDS)
        self._elapsed_s = 0.0
        self._plain_due_s = PLAIN_EVERY_S
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )

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
        """The plans say all that is shown before the first second."""

    def second(self, second: Second, deltas: Deltas) -> None:
        """Show one more second."""
        self.update(second)

    def end(self, document: RunDocument) -> None:
        """The report shows the document."""

    def close(self) -> None:
        """The terminal is given back where the context ends."""

    def update(self, second: Second) -> None:
        """Take in one more second."""
        self._elapsed_s = second.t_s + second.length_s
        self._last.append(second)
        self._sent.append(second.sent / max(second.length_s, 0.001))
        for name in ("planned", "sent", "ok", "error", "timeout", "unsent"):
            self._totals[name] += getattr(second, name)
        self._worse += second.status_worse
        for outcome, count in second.outcomes.items():
            if outcome not in GOOD:
                self._failures[outcome] += count
        if self._live:
            self._live.update(self._panel())
        elif self._elapsed_s >= self._plain_due_s:
            self._plain_due_s += PLAIN_EVERY_S
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _share(self) -> float:
        if self._rows:
            return min(1.0, self._totals["planned"] / self._rows)
        if self._length_ns:
            return min(1.0, self._elapsed_s * 1e9 / self._length_ns)
        return 0.0

    def _worst(self, name: str) -> str:
        figures = [figure for second in self._last if (figure := second.figure_ns(name)) is not None]
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
        """What a Kafka consumer says, where there is one."""
        last = self._last[-1]
        rows = [row for row in HISTOGRAMS if row.only == WITH_CONSUMER]
        kinds = [(f"{row.title} p99", self._worst(f"{row.field}_p99_ns")) for row in rows]
        found = [(name, worst) for name, worst in kinds if worst != "-"]
        return [*found, ("lag", f"{sum(last.lag.values()):,}")] if last.lag else found

    def _failures_text(self) -> str:
        parts = [f"{count:,} {name}" for name, count in self._failures.most_common(4)]
        parts += [f"{self._worse:,} worse than recorded"] if self._worse else []
        return ", ".join(parts) or "none"

    def _line(self) -> str:
        last = self._last[-1]
        parts = [
            f"{self._elapsed_s:5.0f} s",
            f"{self._share():4.0%}",
            f"due {last.planned / last.length_s:,.0f}/s",
            f"sent {last.sent / last.length_s:,.0f}/s",
            f"in flight {last.in_flight:,}",
        ]
        if last.response_p50_ns is not None:
            parts.append(
                f"response p50 {self._worst('response_p50_ns')} p99 {self._worst('response_p99_ns')}"
            )
            parts.append(f"late p99 {self._worst('lateness_p99_ns')}")
        elif last.service_p50_ns is not None:
            parts.append(f"service p50 {self._worst('service_p50_ns')} p99 {self._worst('service_p99_ns')}")
        parts += [f"{name} {value}" for name, value in self._consumed()]
        parts += [f"failed {self._failures_text()}", self._left()]
        return "  ".join(part for part in parts if part)

    def _panel(self) -> RenderableType:
        last = self._last[-1]
        head = Table.grid(padding=(0, 2), expand=True)
        head.add_column(ratio=1)
        head.add_column(justify="right")
        head.add_row(
            ProgressBar(total=1.0, completed=self._share()),
            Text(f"{self._share():.0%}  {self._left()}", style="bold"),
        )
        body = Table.grid(padding=(0, 3))
        for _ in range(4):
            body.add_column()
        dim = "dim"
        body.add_row(
            Text("due", dim), Text(f"{last.planned / last.length_s:,.0f}/s"),
            Text("response p50", dim), Text(self._worst("response_p50_ns")),
        )  # fmt: skip
        body.add_row(
            Text("sent", dim), Text(f"{last.sent / last.length_s:,.0f}/s"),
            Text("response p99", dim), Text(self._worst("response_p99_ns"), "bold"),
        )  # fmt: skip
        body.add_row(
            Text("in flight", dim), Text(f"{last.in_flight:,}  (waiting {last.waiting:,}, sockets {last.open:,})"),
            Text("lateness p99", dim), Text(f"{self._worst('lateness_p99_ns')}  (our own)"),
        )  # fmt: skip
        failures = Text(self._failures_text(), "red" if self._failures or self._worse else "green")
        body.add_row(
            Text("failed", dim), failures, Text("service p99", dim), Text(self._worst("service_p99_ns"))
        )
        consumed = [
            Text(text, style)
            for name, value in self._consumed()
            for text, style in ((name, dim), (value, ""))
        ]
        for at in range(0, len(consumed), 4):
            body.add_row(*consumed[at : at + 4])
        return Group(head, Text(_sparkline(self._sent), "cyan"), body)


def _sparkline(values: deque[float]) -> str:
    """Sent requests a second, the last SPARK_SECONDS of them."""
    top = max(values, default=0.0)
    return "".join(SPARKS[round(value / top * (len(SPARKS) - 1))] if top else " " for value in values)
