"""Watched figures: when one changed, when an objective was first missed, and which was first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.results import slo, watched
from replay.results.figures import WatchFigures
from replay.results.timeline import Second

MS = 1_000_000


def row(at: int, p99_ms: float = 10.0, ok: int = 100, failed: int = 0, **figures: float | None) -> Second:
    return Second(
        t_s=float(at), length_s=1.0, wall_ns=0, planned=ok + failed, sent=ok + failed, ok=ok, error=0, timeout=failed,
        unsent=0, in_flight=0, waiting=0, open=1, bytes_sent=0, bytes_received=0,
        outcomes={"2xx": ok, **({"timeout": failed} if failed else {})}, response_p99_ns=int(p99_ms * MS), watched=figures,
    )  # fmt: skip


def test_a_figure_that_jumps_has_changed_where_it_jumped() -> None:
    assert watched.shifted_at([4.0] * 10 + [9.0] * 10) == 10
    assert watched.shifted_at([4.0, 5.0, 4.0, 4.5, 5.0] * 2 + [40.0] * 3) == 10


def test_noise_and_single_spikes_are_no_change() -> None:
    assert watched.shifted_at([4.0, 5.0] * 10) is None
    assert watched.shifted_at([4.0] * 10 + [9.0, 9.0] + [4.0] * 10) is None
    assert watched.shifted_at([100.0] * 10 + [115.0] * 10) is None, "less than a fifth"


def test_gaps_neither_count_nor_move_the_row() -> None:
    assert watched.shifted_at([4.0, None] * 5 + [9.0, None, 9.0, 9.0]) == 10
    assert watched.shifted_at([None] * 20) is None and watched.shifted_at([]) is None


@given(st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), max_size=40))
def test_any_values_have_an_answer(values: list[float | None]) -> None:
    at = watched.shifted_at(values)
    assert at is None or values[at] is not None


@pytest.mark.parametrize(
    ("text", "rows", "breach"),
    [
        ("p99<100ms", [row(0), row(1, 99.0), row(2, 101.0)], 2),
        ("p95<100ms", [row(0), row(1, 300.0)], 1),
        ("errors<1%", [row(0), row(1, failed=1), row(2, failed=2)], 2),
        ('p99 of "GET /a" < 1ms', [row(0, 500.0)], None),
        ("p99<100ms", [], None),
    ],
)
def test_the_first_second_that_misses_an_objective(text: str, rows: list[Second], breach: int | None) -> None:
    assert watched.breached_at(rows, [slo.parse(text)]) == breach


def test_the_figure_that_changed_first_is_named() -> None:
    rows = [
        row(
            at,
            10.0 if at < 14 else 900.0,
            queue=1.0 if at < 12 else 80.0,
            pods=3.0,
            pool=9.0 if at < 16 else 0.0,
        )
        for at in range(20)
    ]
    figures = [
        WatchFigures(name=name, source="json", samples=20) for name in ("pods", "pool", "queue", "gone")
    ]
    found, first = watched.with_shifts(figures, rows, [slo.parse("p99<100ms")])
    changed = {figure.name: figure.changed_at_s for figure in found}
    assert changed == {"queue": 12.0, "pods": None, "pool": 16.0, "gone": None}
    assert first == "queue changed first, 2 s before an objective was missed"
    late = [row(at, 10.0 if at < 8 else 900.0, queue=1.0 if at < 12 else 80.0) for at in range(20)]
    assert watched.with_shifts(figures[2:3], late, [slo.parse("p99<100ms")])[1] == "", (
        "it changed after the breach"
    )
    assert watched.with_shifts(figures[2:3], rows, [])[1] == "", "no objective, nothing to be first before"
    both = [slo.parse("p50<1us"), slo.parse("p99<100ms")]
    assert watched.with_shifts(figures, rows, both)[1] == first, "one that was never met hides nothing"


def test_a_counter_has_changed_where_its_growth_did() -> None:
    steady = [5.0 * at for at in range(20)]
    assert watched.shifted_at(steady) is None, "it only goes on growing"
    assert watched.shifted_at(steady[:10] + [steady[9] + 50.0 * at for at in range(1, 11)]) == 10
    assert watched.shifted_at([0.0] * 10 + [1.0 * at for at in range(1, 11)]) == 10, "errors that begin"
