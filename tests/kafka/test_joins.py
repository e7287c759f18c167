"""Which consumed record is which produced one: by offset in its own topic, by key or header of an answer."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.protocols.kafka.joins import Answers, Offsets
from replay_native.kafka import produce
from tests.reference import recordbatch as naive

cuts = st.lists(st.integers(1, 7), min_size=1, max_size=30)


def dues_of(first: int, count: int) -> np.ndarray:
    """Due times that say their offset; every fifth is of the warm-up."""
    offsets = np.arange(first, first + count)
    return np.where(offsets % 5 == 4, -(offsets + 1), offsets + 1)


@settings(deadline=None)
@given(cuts, cuts, st.lists(st.booleans(), min_size=60, max_size=60))
def test_every_record_is_joined_once_however_both_sides_are_cut(acked, seen, acks_first):
    total = min(sum(acked), sum(seen))
    offsets, latencies = Offsets(), []
    at = [0, 0]
    cut = [iter(acked), iter(seen)]
    turns = [not first for first in acks_first]
    while at[0] < total or at[1] < total:
        side = int(turns.pop()) if turns else int(at[0] >= total)
        side = side if at[side] < total else 1 - side
        count = min(next(cut[side]), total - at[side])
        if side == 0:
            offsets.acks.append((at[0], dues_of(at[0], count)))
        else:
            offsets.seen.append((at[1], at[1] + count, 1_000_000))
        at[side] += count
        latencies += [latency for found in offsets.join() for latency in found.tolist()]
    assert sorted(1_000_000 - latency for latency in latencies) == [n + 1 for n in range(total) if n % 5 != 4]
    assert not offsets.acks and not offsets.seen and not offsets.skipped


def test_records_of_others_are_passed_over_and_skipped_ones_are_named():
    offsets = Offsets()
    offsets.acks.extend([(10, np.array([1, 2])), (20, np.array([3, 4, 5]))])
    offsets.seen.extend([(0, 12, 100), (12, 20, 110), (22, 23, 120)])
    assert [found.tolist() for found in offsets.join()] == [[99, 98], [115]]
    assert np.concatenate(offsets.skipped).tolist() == [3, 4]


def test_an_answer_is_the_oldest_record_s_of_its_key():
    answers = Answers()
    assert answers.sent(b"k", 10) is answers.sent(b"k", 20) is answers.sent(b"other", 15) is None
    assert (answers.came(b"k", 100), answers.came(b"k", 100), answers.owed) == (90, 80, 1)


def test_an_answer_may_come_before_its_acknowledgement_but_not_before_its_record():
    answers = Answers()
    assert answers.came(b"k", 50) is None
    assert answers.sent(b"k", 60) is None
    assert answers.strange == 1
    assert answers.came(b"k", 90) == 30
    assert answers.came(b"early", 70) is None
    assert answers.sent(b"early", 65) == 5


def test_what_is_not_answered_expires_and_the_warm_up_is_measured_of_nothing():
    answers = Answers()
    for due in (10, -20, 30):
        answers.sent(b"k", due)
    assert answers.expire(25) == [10]
    assert answers.came(b"k", 100) == 70 and answers.owed == 0
    assert answers.came(b"nobody", 40) is None
    assert answers.expire(200) == [] and answers.strange == 1
    assert not answers.waiting and not answers.early


records = st.lists(
    st.builds(
        naive.Record,
        st.none() | st.binary(max_size=150),
        st.none() | st.binary(max_size=80),
        st.integers(0, 1000),
        st.lists(
            st.tuples(st.sampled_from(["", "id", "X-Replay", "ключ"]), st.none() | st.binary(max_size=70)),
            max_size=4,
        ).map(tuple),
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(records, st.sampled_from(["", "id", "X-Replay", "ключ"]))
def test_what_a_record_is_known_by_stands_where_it_says(made, name):
    data = np.frombuffer(naive.batch(made)[61:], np.uint8).copy()
    spans = np.empty((len(made), 2), np.int64)
    produce.correlations(data, np.frombuffer(bytearray(name.encode()), np.uint8), spans)
    found = [bytes(data[begin:end]) if begin >= 0 else None for begin, end in spans.tolist()]
    assert found == [
        next((value for key, value in record.headers if key == name and value is not None), None)
        if name
        else record.key
        for record in made
    ]
