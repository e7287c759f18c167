"""Delays, accounts, samples and copies of a followed source, against what they mean."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.following.account import NeededDelays
from replay.following.own_requests import OwnRequests
from replay.following.pending import lead_of, needed_of
from replay.following.selecting import Entries, Selecting
from replay.settings.file import load
from replay.units import MS_NS, SECOND_NS

METHODS = ["GET", "HEAD", "POST", "CONNECT"]


def _entries(
    count: int, *, client: int = 1, every_ns: int = 10 * MS_NS, method: int = 0, from_ns: int = 0
) -> Entries:
    numbers = np.arange(count, dtype=np.int64)
    return Entries(
        from_ns + numbers * every_ns, (numbers % client).astype(np.uint32), numbers.astype(np.uint32),
        np.full(count, method, np.uint8), np.zeros(count, np.uint32), np.full(count, 200, np.int16), numbers * 7_919,
        np.zeros(count, bool), np.zeros(count, bool),
    )  # fmt: skip


def _selecting(**flags: object) -> Selecting:
    return Selecting(load(None, flags=flags), METHODS, ["GET /a", "(unused 1)"], ["", ""], 1_000)


@given(st.integers(20 * MS_NS, 100 * SECOND_NS), st.integers(20 * MS_NS, 100 * SECOND_NS))
def test_an_entry_is_late_just_where_it_needed_more_than_the_delay(lag_ns: int, delay_ns: int) -> None:
    late = lag_ns + lead_of(delay_ns) > delay_ns
    needed_ns = int(needed_of(np.array([lag_ns]))[0])
    if abs(needed_ns - delay_ns) > 2:
        assert (needed_ns > delay_ns) == late


@given(st.lists(st.integers(0, 3_600 * SECOND_NS), min_size=1, max_size=2_000))
def test_the_needed_delay_is_that_of_the_share_within_two_percent(lags_ns: list[int]) -> None:
    needed = NeededDelays()
    needed.add(np.array(lags_ns))
    exact = sorted(lags_ns)[int(np.ceil(0.999 * len(lags_ns))) - 1]
    found = needed.at()
    assert found is not None and needed.max_ns == max(lags_ns)
    assert exact <= max(found, MS_NS) * 1.001 and found <= max(exact * 1.02, MS_NS)


def test_nothing_was_needed_where_nothing_came() -> None:
    assert NeededDelays().at() is None


def test_methods_that_may_not_be_sent_are_counted_by_name() -> None:
    skipped = Counter[str]()
    selecting = _selecting()
    assert len(selecting.select(_entries(5), skipped)) == 5
    assert len(selecting.select(_entries(5, method=2), skipped)) == 0
    assert len(selecting.select(_entries(2, method=3), skipped)) == 0
    assert skipped == {"method POST": 5, "method CONNECT": 2}


def test_a_write_without_a_body_is_not_sent_unless_that_is_asked_for() -> None:
    skipped = Counter[str]()
    entries = _entries(4, method=2)
    entries.has_body[:2] = True
    assert len(_selecting(methods="all").select(entries, skipped)) == 2
    assert skipped.total() == 2 and "no body" in next(iter(skipped))
    assert len(_selecting(methods="all", empty_bodies=True).select(entries, Counter())) == 4


def test_a_row_that_gets_a_name_gets_its_rules() -> None:
    selecting = _selecting(only=["GET /b"])
    entries = _entries(3)
    entries.route[:] = 1
    assert len(selecting.select(entries, Counter())) == 0
    selecting._names[1] = "GET /b"
    selecting.renamed(1, "GET /b", "")
    assert len(selecting.select(entries, Counter())) == 3


def test_a_sample_by_client_keeps_whole_clients_and_is_the_same_each_time() -> None:
    entries = _entries(4_000, client=400)
    kept = [_selecting(sample="25%", sample_by="client").select(entries, Counter()) for _ in range(2)]
    assert np.array_equal(kept[0].request, kept[1].request)
    clients = np.unique(kept[0].client)
    assert 60 < len(clients) < 140 and len(kept[0]) == 10 * len(clients)


@pytest.mark.parametrize("grow", ["requests", "repeat", "sessions"])
def test_copies_come_with_or_after_their_entry(grow: str) -> None:
    entries = _entries(1_000, client=10)
    kept, copies = _selecting(scale="3", grow=grow).scale(entries, Counter())
    assert len(kept) == 1_000 and [len(copy) for copy in copies] == [1_000, 1_000]
    for number, copy in enumerate(copies, 1):
        shift_ns = copy.start_ns - entries.start_ns
        assert shift_ns.min() >= 0 and copy.is_copy.all()
        if grow == "repeat":
            assert not shift_ns.any()
        if grow == "requests":
            assert shift_ns.max() <= 10 * MS_NS and len(np.unique(shift_ns)) > 500
        if grow == "sessions":
            assert np.array_equal(copy.client, entries.client + 1_000 * number)
            assert all(
                len(np.unique(shift_ns[copy.client == client])) == 1 for client in np.unique(copy.client)
            )


def test_a_fraction_of_a_factor_is_kept_on_average() -> None:
    skipped = Counter[str]()
    kept, copies = _selecting(scale="0.25").scale(_entries(10_000), skipped)
    assert not copies and 2_200 < len(kept) < 2_800 and skipped["left out by --scale"] == 10_000 - len(kept)
    kept, copies = _selecting(scale="1.5").scale(_entries(10_000), Counter())
    assert len(kept) == 10_000 and 4_600 < sum(map(len, copies)) < 5_400


def _seconds(own: OwnRequests, delay_ns: int, *, loops: bool, period_ns: int = 0) -> int:
    """Ten seconds of a source with 20 entries per second; what came back in a loop, or not."""
    found, sent = 0, list[Entries]()
    for second in range(10):
        fresh = _entries(20, every_ns=50 * MS_NS, from_ns=second * SECOND_NS)
        if not period_ns:
            fresh.key[:] += second * 1_000_003
        came = [fresh]
        if loops:
            begin_ns, end_ns = second * SECOND_NS - delay_ns, (second + 1) * SECOND_NS - delay_ns
            came += [_moved(part, delay_ns) for part in sent if begin_ns <= part.start_ns[0] < end_ns]
        for part in came:
            own.entered(part)
            own.released(part)
            sent.append(part)
        found = max(found, own.second())
    return found


def _moved(entries: Entries, by_ns: int) -> Entries:
    moved = entries[slice(None)]
    moved.start_ns = entries.start_ns + by_ns + 3 * MS_NS
    return moved


def test_requests_that_come_back_after_the_delay_are_ours() -> None:
    assert _seconds(OwnRequests(2 * SECOND_NS, MS_NS), 2 * SECOND_NS, loops=True) > 0


@pytest.mark.parametrize("period_ns", [0, SECOND_NS])
def test_traffic_of_others_is_not_ours(period_ns: int) -> None:
    assert _seconds(OwnRequests(2 * SECOND_NS, MS_NS), 2 * SECOND_NS, loops=False, period_ns=period_ns) == 0
