"""The seconds of the whole run, summed up from reports in any order."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.cluster.broadcast import Broadcast
from replay.cluster.merged_logs import sum_of_rows
from replay.cluster.messages import Counts, Report
from replay.cluster.whole_seconds import LATE_S, WholeSeconds
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.run import load_run
from replay.results.timeline import Second
from replay.settings.scenario import Scenario
from tests.support.compare_data import make_run


def report(agent: int, number: int, count: int, total: int) -> Report:
    """An agent's second `number` (from 1), in which so many requests ended."""
    row = Second(
        t_s=number - 1.0, length_s=1.0, wall_ns=0, planned=count, sent=count, ok=count, error=0, timeout=0, unsent=0,
        in_flight=agent, waiting=0, open=1, bytes_sent=0, bytes_received=0, outcomes={"2xx": count},
    )  # fmt: skip
    histogram = Counts(
        tag="response.all",
        since_s=number - 1.0,
        length_s=1.0,
        at=np.array([agent, 10], "<i4").tobytes(),
        counts=np.array([1, count], "<u8").tobytes(),
    )
    return Report(
        epoch="e", number=number, at_s=float(number), totals={"sent": total}, second=msgspec.to_builtins(row),
        counters={"sent": count}, routes={"GET /": {"2xx": count}}, histograms=[histogram],
    )  # fmt: skip


def drained(seconds: WholeSeconds) -> list[tuple[Second, Deltas]]:
    """What is left at the end of the run."""
    rows = []
    while seconds.has_more:
        if (found := seconds.take(1e9, (), {})) is not None:
            rows.append(found)
    return rows


@given(st.lists(st.integers(2, 9_999), min_size=1, max_size=20))
def test_each_row_ends_where_the_next_one_begins(halves: list[int]) -> None:
    """The end of a second is a median: of two agents it may lie between two milliseconds."""
    row = msgspec.convert(report(0, 1, 3, 3).second, Second)
    start_s = 0.0
    for half_ms in halves:
        length_s = half_ms / 2_000
        found = sum_of_rows([[row]], start_s, start_s + length_s, {}, 0)
        start_s = round(start_s + length_s, 3)
        assert round(found.t_s + found.length_s, 3) == start_s


def test_a_second_is_complete_once_every_agent_has_reported_it() -> None:
    seconds = WholeSeconds(5)
    seconds.add(0, report(0, 1, 3, 3))
    assert seconds.take(1.1, {0, 1}, {}) is None
    seconds.add(1, report(1, 1, 4, 4))
    found = seconds.take(1.2, {0, 1}, {"files": 7.0})
    assert found is not None
    row, deltas = found
    assert (row.planned, row.in_flight, row.watched, row.wall_ns) == (7, 1, {"files": 7.0}, 5)
    assert deltas.totals == {"sent": 7} and deltas.routes == {"GET /": {"2xx": 7}}
    (histogram,) = deltas.histograms
    assert (histogram.at.tolist(), histogram.counts.tolist()) == ([0, 1, 10], [1, 1, 7])
    assert seconds.take(1.3, {0, 1}, {}) is None


def test_a_late_report_is_part_of_the_next_second() -> None:
    seconds = WholeSeconds(0)
    seconds.add(0, report(0, 1, 3, 3))
    early = seconds.take(1 + LATE_S + 0.1, {0, 1}, {})
    assert early is not None and early[0].ok == 3
    seconds.add(1, report(1, 1, 4, 4))
    for agent in (0, 1):
        seconds.add(agent, report(agent, 2, 10, 10))
    late = seconds.take(2.1, {0, 1}, {})
    assert late is not None and late[0].ok == 24


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(0, 50)), max_size=30),
    st.lists(st.floats(0, 12), min_size=1, max_size=10),
)
def test_sums_over_a_run_are_exact_in_whatever_order_reports_come(came, times) -> None:
    seconds = WholeSeconds(0)
    sent: Counter[int] = Counter()
    rows = []
    for at, (agent, number, count) in enumerate(came):
        sent[agent] += count
        seconds.add(agent, report(agent, number, count, sent[agent]))
        if (found := seconds.take(times[at % len(times)], range(4), {})) is not None:
            rows.append(found)
    rows += drained(seconds)
    assert sum(row.ok for row, _ in rows) == sum(count for _, _, count in came)
    assert sum(deltas.counters["sent"] for _, deltas in rows) == sum(sent.values())
    assert sum(one.count for _, deltas in rows for one in deltas.histograms) == sum(
        count + 1 for _, _, count in came
    )
    assert [row.t_s for row, _ in rows] == sorted(row.t_s for row, _ in rows)
    if rows:
        assert rows[-1][1].totals == {"sent": sum(sent.values())}


class Failing:
    """A sink that fails at the end."""

    name = "failing"

    def start(self, started: Started) -> None:
        """Nothing."""

    def second(self, second: Second, deltas: Deltas) -> None:
        """Nothing."""

    def end(self, document: RunDocument) -> None:
        """Fail."""
        raise OSError("no room")

    def close(self) -> None:
        """Nothing."""


def test_a_sink_that_fails_at_the_end_is_noted_in_the_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", seed=1)
    broadcast = Broadcast(Scenario(), [Failing()])
    broadcast.begin(1, 1)
    broadcast.opened(msgspec.convert(STARTED, Started), 2)
    document = broadcast.end(load_run(folder).document, folder)
    assert any(note.code == "SINK_FAILED" for note in document.notes)
    assert load_run(folder).document.notes == document.notes


STARTED = {"start": {"monotonic_ns": 1, "wall_ns": 1}, "routes": [], "max_wait_ns": 1, "engine": "native"}
