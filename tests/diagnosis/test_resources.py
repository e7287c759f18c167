"""Which watched figure gave way first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.diagnosis.resources import Given, first_of
from replay.diagnosis.usage import Samples, usages_of
from replay.results.timeline import Second


def seconds(count: int) -> list[Second]:
    return [
        Second(t_s=float(at), length_s=1.0, wall_ns=0, planned=100, sent=100, ok=100, error=0, timeout=0, unsent=0,
               in_flight=0, waiting=0, open=1, bytes_sent=0, bytes_received=0)
        for at in range(count)
    ]  # fmt: skip


def first(values: dict[str, Samples], harmed: int | None) -> Given:
    return first_of(values, {}, seconds(max(map(len, values.values()))), harmed)


def rising(full_from: int, length: int = 30, limit: float = 10.0, low: float = 2.0) -> list[float | None]:
    """From `low` at the beginning to the limit at `full_from`, in a line."""
    return [min(low + (limit - low) * at / full_from, limit) for at in range(length)]


def jumping(at: int, length: int = 30, limit: float = 10.0, low: float = 2.0) -> list[float | None]:
    """At `low`, then at the limit: as workers that wait for something else."""
    return [low if second < at else limit for second in range(length)]


def with_limit(name: str, samples: Samples, limit: float = 10.0) -> dict[str, Samples]:
    return {name: samples, f"{name}.limit": [limit] * len(samples)}


def test_what_was_nearest_to_its_limit_is_named_not_what_waited_for_it() -> None:
    values = with_limit("auth.busy", jumping(15)) | with_limit("auth.database.busy", rising(15))
    given_way = first(values, 16)
    assert given_way.first == "auth.database.busy"
    assert given_way.evidence[0].startswith("auth.database.busy reached its limit of 10 at 15 s; it was at ")
    assert any(words.startswith("auth.busy reached its limit") for words in given_way.evidence)


def test_two_that_were_equally_near_are_not_told_apart() -> None:
    given_way = first(with_limit("a.busy", rising(15)) | with_limit("b.busy", rising(15)), 16)
    assert given_way.first is None
    assert "neither was clearly nearer" in given_way.evidence[0]


def test_what_gave_way_after_the_harm_is_not_its_cause() -> None:
    given_way = first(with_limit("a.busy", jumping(20)), 10)
    assert given_way.first is None
    assert [resource.name for resource in given_way.resources] == ["a.busy"]


def test_what_is_full_from_the_start_without_harm_is_not_named() -> None:
    values = with_limit("a.cache.entries", [10.0] * 30) | with_limit("b.busy", rising(15))
    assert first(values, 16).first == "b.busy"


def test_full_from_the_start_beside_harm_from_the_start_is_named() -> None:
    assert first(with_limit("a.busy", [10.0] * 30) | with_limit("b.busy", [2.0] * 30), 0).first == "a.busy"


def test_refusals_count_as_giving_way_before_the_samples_show_a_full_queue() -> None:
    values = with_limit("a.queue", [0.0, 3.0] * 15) | {
        "a.queue.refused": [0.0] * 12 + [float(n) for n in range(18)]
    }
    given_way = first(values, 13)
    assert given_way.first == "a.queue" and "refused work at 13 s (its limit is 10)" in given_way.evidence[0]


def test_one_sample_at_the_limit_is_chance() -> None:
    values = with_limit("a.busy", [2.0] * 10 + [10.0] + [2.0] * 10)
    assert first(values, 10).first is None


def test_replicas_at_their_bound_are_named_for_the_workers_they_bound() -> None:
    values = with_limit("a.busy", jumping(14)) | with_limit("a.replicas", rising(18, limit=3.0, low=1.0), 3.0)
    given_way = first(values, 15)
    assert given_way.first == "a.replicas" and "was at its limit of 3" in given_way.evidence[0]


def test_limits_that_are_none_are_no_limits() -> None:
    usages = usages_of({"a": [1.0, 2.0], "a.limit": [0.0, None], "b": [3.0, None]}, {"b": 6.0})
    assert [(usage.name, usage.has_limit, usage.highest) for usage in usages] == [
        ("a", False, None),
        ("b", True, 0.5),
    ]


def test_without_harm_the_nearest_is_named_as_near_only() -> None:
    given_way = first(with_limit("a.busy", [5.0] * 10), None)
    assert given_way.first is None and given_way.evidence == ["a.busy came nearest to its limit: 50% of it"]


@given(
    st.lists(st.lists(st.none() | st.floats(0, 9.4), min_size=12, max_size=12), min_size=1, max_size=4),
    st.none() | st.integers(0, 11),
)
def test_a_figure_that_stayed_away_from_its_limit_is_never_named(
    series: list[list[float | None]], harmed: int | None
) -> None:
    values: dict[str, Samples] = {}
    for at, samples in enumerate(series):
        values |= with_limit(f"a.{at}.busy", samples)
    assert first(values, harmed).first is None


@pytest.mark.parametrize(("misses_per_s", "named"), [(1.0, "a.busy"), (60.0, "a.cache.entries")])
def test_a_full_cache_is_named_only_where_lookups_missed_it(misses_per_s: float, named: str) -> None:
    values = with_limit("a.busy", rising(15)) | with_limit("a.cache.entries", [10.0] * 30)
    values |= {
        "a.cache.hits": [90.0 * at for at in range(30)],
        "a.cache.misses": [misses_per_s * at for at in range(30)],
    }
    assert first(values, 16).first == named


def test_a_full_cache_without_its_misses_is_not_named() -> None:
    values = with_limit("a.busy", rising(15)) | with_limit("a.cache.entries", [10.0] * 30)
    assert first(values, 16).first == "a.busy"
