"""The time that a lane lost, against a twin that adds it up turn by turn."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay_native.ledger import lane_metrics
from replay_native.ledger.gaps import GAP_NS, INSTANT_NS, note_poll
from replay_native.ledger.lane_metrics import COUNTERS
from tests.reference.gaps import Turn, totals, unread

pytestmark = pytest.mark.boundscheck

MS = 1_000_000
SPANS = st.sampled_from([0, 1, INSTANT_NS - 1, INSTANT_NS, GAP_NS, GAP_NS + 1, 3 * MS, 600 * MS])
TURNS = st.lists(st.builds(Turn, SPANS, SPANS, SPANS, st.booleans()), max_size=30)
_names = count()


def noted(folder: Path, turns: list[Turn]) -> tuple[dict[str, int], list[int]]:
    """A lane's counters after these turns, and what each of them returned."""
    path = folder / f"bank-{next(_names)}"
    metrics, now, found = lane_metrics.create(path, 1, arena_bytes=1), 1_000 * MS, []
    for turn in turns:
        asleep, woke = now + turn.awake, now + turn.awake + turn.slept
        found.append(int(note_poll(metrics, now, asleep, asleep + turn.asked, woke, GAP_NS, turn.behind)))
        now = woke
    path.unlink()
    return dict(zip(COUNTERS, metrics.counters.tolist(), strict=True)), found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(turns=TURNS)
def test_gaps_are_those_of_the_twin(tmp_path: Path, turns: list[Turn]) -> None:
    counters, found = noted(tmp_path, turns)
    expected = totals(turns, GAP_NS)
    assert {name: counters[name] for name in expected} == expected
    assert found == [unread(turn, GAP_NS, INSTANT_NS) for turn in turns]


@pytest.mark.parametrize(
    ("turn", "lost_ns", "unread_ns"),
    [
        pytest.param(Turn(20_000, MS, MS + 60_000), 0, 0, id="slept as it asked to"),
        pytest.param(Turn(20_000, MS, 300_000), 0, 0, id="woken early by a response"),
        pytest.param(Turn(20_000, MS, 600 * MS), 599 * MS, 600 * MS, id="stopped in its sleep"),
        pytest.param(
            Turn(600 * MS, MS, 2_000), 600 * MS, 600 * MS, id="stopped at work, responses were there"
        ),
        pytest.param(Turn(600 * MS, MS, MS), 600 * MS, 0, id="stopped at work, no response was there"),
        pytest.param(Turn(0, 0, 600 * MS), 600 * MS, 600 * MS, id="stopped in a poll without sleep"),
    ],
)
def test_what_a_turn_lost(tmp_path: Path, turn: Turn, lost_ns: int, unread_ns: int) -> None:
    counters, found = noted(tmp_path, [turn])
    assert (counters["lost_ns"], found) == (lost_ns, [unread_ns])
