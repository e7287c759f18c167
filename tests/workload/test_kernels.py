"""The workload kernels against their twins, and portions of any size against the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.trace import Batch
from replay.trace.columns import ALL_COLUMNS, EVENT_COLUMNS
from replay.workload.steps import Memory, once_more
from replay_native.ground import jit
from replay_native.trace import columns
from replay_native.workload import (
    arrivals,
    dispersion,
    mixes,
    scale,
)
from tests.reference import workload as naive
from tests.reference.naive import random_of

jit.warm(["workload.arrivals", "workload.mixes", "workload.scale", "workload.dispersion"])

pytestmark = pytest.mark.boundscheck

NO_CHAIN = np.array([1.0, 1.0, 0.0, 0.0])
NS = 1_000_000_000

curves = st.lists(
    st.tuples(st.integers(1, 5_000), st.floats(0, 200), st.floats(0, 200)), min_size=1, max_size=6
).map(
    lambda parts: [
        naive.Segment(
            sum(p[0] for p in parts[:i]) * 1_000_000, sum(p[0] for p in parts[: i + 1]) * 1_000_000, a, b
        )
        for i, (_, a, b) in enumerate(parts)
    ]
)
portions = st.lists(st.integers(1, 50), min_size=1, max_size=8)


def arrive(
    curve: list[naive.Segment],
    process: int,
    portions: list[int],
    *,
    shape: float = 1.0,
    chain: np.ndarray = NO_CHAIN,
    seed: int = 1,
) -> list[int]:
    """All arrivals of a curve, in portions of these sizes, over and over."""
    edges = np.array([0, *(segment.until_ns for segment in curve)], np.int64)
    rates = np.array([[segment.begin_rate, segment.end_rate] for segment in curve])
    words, reals = np.zeros(arrivals.STATE_WORDS, np.int64), np.zeros(arrivals.STATE_REALS)
    found: list[int] = []
    for turn in range(1_000_000):
        out = np.empty(portions[turn % len(portions)], np.int64)
        count = arrivals.arrive(
            arrivals.Process(edges, rates, process, shape, chain, seed), 0, words, reals, out
        )
        found += out[:count].tolist()
        if count < len(out):
            return found
    raise AssertionError("no end")


@settings(max_examples=60, deadline=None)
@given(curves, st.integers(0, 2**62), portions)
def test_arrivals_are_where_the_area_under_the_curve_says(
    curve: list[naive.Segment], seed: int, portions: list[int]
) -> None:
    found = arrive(curve, arrivals.POISSON, portions, seed=seed)
    expected = naive.arrivals(curve, naive.exponential_gaps(seed, len(found) + 1))
    assert len(found) == len(expected)
    assert all(abs(a - b) <= 2_000 for a, b in zip(found, expected, strict=True))
    assert found == sorted(found)


def test_even_arrivals_begin_at_once_and_keep_their_period() -> None:
    curve = [naive.Segment(0, 60 * NS, 100.0, 100.0)]
    assert arrive(curve, arrivals.EVEN, [1_000]) == [n * 10_000_000 for n in range(6_000)]


@pytest.mark.parametrize("cv", [0.5, 2.0, 5.0])
def test_gamma_gaps_have_the_mean_and_variation_asked_for(cv: float) -> None:
    curve = [naive.Segment(0, 200_000 * NS, 1.0, 1.0)]
    gaps = np.diff(arrive(curve, arrivals.GAMMA, [1 << 16], shape=1 / cv**2)) / NS
    assert gaps.mean() == pytest.approx(1.0, abs=5 * cv / math.sqrt(len(gaps)))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.1)


@settings(max_examples=20, deadline=None)
@given(portions, st.sampled_from([arrivals.EVEN, arrivals.POISSON, arrivals.GAMMA]))
def test_portions_do_not_change_what_comes(portions: list[int], process: int) -> None:
    curve = [naive.Segment(0, 2 * NS, 0.0, 90.0), naive.Segment(2 * NS, 3 * NS, 50.0, 50.0)]
    chain = np.array([2.0, 0.5, 3e8, 6e8])
    whole = arrive(curve, process, [10_000], shape=0.3, chain=chain)
    assert arrive(curve, process, portions, shape=0.3, chain=chain) == whole


def test_a_chain_spends_its_dwell_times_in_its_states() -> None:
    curve = [naive.Segment(0, 50_000 * NS, 2.0, 2.0)]
    chain = np.array([2.5, 0.0, 4e9, 6e9])
    found = np.array(arrive(curve, arrivals.POISSON, [1 << 16], chain=chain))
    assert len(found) == pytest.approx(100_000, rel=0.05)
    counts = np.bincount(found // (10 * NS), minlength=5_000)
    variance_of_rate = 2.0**2 * (0.4 * 2.5**2 - 1)
    r = 1 / 4 + 1 / 6
    predicted = 1 + 2 * variance_of_rate / (r * 2.0) * (1 - (1 - math.exp(-10 * r)) / (10 * r))
    assert counts.var() / counts.mean() == pytest.approx(predicted, rel=0.1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=40).filter(lambda weights: sum(weights) > 0.1))
def test_an_alias_table_holds_exactly_the_weights(weights: list[float]) -> None:
    n = len(weights)
    share, alias, work = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, np.int64)
    mixes.build_alias(np.array(weights), share, alias, work)
    held = share.copy()
    np.add.at(held, alias, 1 - share)
    assert held / n == pytest.approx(np.array(weights) / sum(weights), abs=1e-9)


class Trace:
    """Requests 0 .. n - 1 of routes 0 .. n - 1, as kernels see them."""

    def __init__(self, routes: int) -> None:
        self.route = np.arange(routes, dtype=np.uint32)
        self.table = np.zeros((1, 4), np.int64)
        self.table[0, columns.ROUTE] = self.route.ctypes.data


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 4)), max_size=60),
    st.lists(st.floats(0.1, 6.0), min_size=2, max_size=2),
    st.integers(0, 2**62),
    st.integers(1, 20),
)
def test_growing_is_exact_and_the_same_in_any_batches(
    rows: list[tuple[int, int]], factors: list[float], seed: int, batch: int
) -> None:
    rows = sorted(rows)
    trace, classes = Trace(5), np.array([0, 1, -1, 0, 1], np.int64)
    at_ns = np.array([at for at, _ in rows], np.int64)
    request = np.array([route for _, route in rows], np.uint32)
    counts = np.bincount(request, minlength=5)
    whole = np.floor(factors).astype(np.int64)
    states = np.zeros((5, scale.ROUTE_WORDS), np.int64)
    states[:, scale.LEFT] = counts
    states[:, scale.EXTRA] = extra = once_more(counts, classes, np.array(factors), seed)
    before = np.full(2, scale.KEPT, np.int64)
    growth = scale.Growth(classes, whole, states, before, seed, False)
    found, no_clients, unknown = [], np.zeros(0, np.uint32), np.zeros(0, np.int16)
    for first in range(0, len(rows), batch):
        part, begin = slice(first, first + batch), 0
        while begin < len(at_ns[part]):
            out_at, out_source = np.empty(8, np.int64), np.empty(8, np.int64)
            trace_rows = columns.TraceRows(at_ns[part], request[part], request[part], unknown, at_ns[part])
            out = scale.Copies(out_at, out_source, no_clients)
            count, begin = scale.grow(trace_rows, begin, trace.table, growth, first, out)
            found += list(zip(out_at[:count].tolist(), (first + out_source[:count]).tolist(), strict=True))
    events = [naive.Event(at, route, int(classes[route])) for at, route in rows]
    assert found == naive.grown(events, whole.tolist(), extra.tolist(), seed)
    times = np.bincount([rows[source][1] for _, source in found], minlength=5)
    for number, factor in enumerate(factors):
        of = classes == number
        assert times[of].sum() == round(int(counts[of].sum()) * factor)
        assert (np.abs(times[of] - counts[of] * factor) < 1).all()
    assert times[2] == counts[2]


def test_rare_routes_are_rounded_by_the_seed_and_not_all_one_way() -> None:
    classes, factors = np.zeros(1000, np.int64), np.array([1.5])
    more = [once_more(np.ones(1000, np.int64), classes, factors, seed) for seed in (1, 1, 2)]
    assert more[0].sum() == 500 and 150 < more[0][:500].sum() < 350
    assert (more[0] == more[1]).all() and (more[0] != more[2]).any()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 4), max_size=60),
    st.lists(st.integers(-1, 3), min_size=5, max_size=5),
    st.integers(1, 9),
)
def test_rows_are_counted_by_the_rule_of_their_route(
    routes: list[int], rules: list[int], at_once: int
) -> None:
    trace, counts = Trace(5), np.arange(5, dtype=np.int64)
    scale.count_classes(
        np.array(routes, np.uint32),
        trace.table,
        np.array(rules, np.int64),
        np.empty(at_once, np.int64),
        counts,
    )
    of = [rules[request] for request in routes]
    assert (counts - np.arange(5)).tolist() == [*(of.count(rule) for rule in range(4)), of.count(-1)]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 40), st.booleans())
def test_rows_are_taken_by_their_indexes(data: st.DataObject, rows: int, wide: bool) -> None:
    names = [name for name in ALL_COLUMNS if wide or name in EVENT_COLUMNS]
    batch = Batch(**{name: np.arange(rows).astype(ALL_COLUMNS[name]) - (name == "status") for name in names})
    memory = Memory()
    for _ in range(3):
        kept = np.array(data.draw(st.lists(st.integers(0, rows - 1), max_size=60)), np.int64)
        times = memory.empty(len(kept), np.int64)
        times[:] = 7
        taken = memory.taken(batch, kept, at_ns=times)
        assert all(
            (getattr(taken, name) == getattr(batch, name)[kept]).all() for name in names if name != "at_ns"
        )
        assert all(getattr(taken, name).dtype == ALL_COLUMNS[name] for name in names)
        assert (taken.at_ns == 7).all() and (taken.response is None) == (not wide)


def test_memory_is_reused_once_nothing_refers_to_a_batch() -> None:
    batch = Batch(**{name: np.arange(9).astype(dtype) for name, dtype in ALL_COLUMNS.items()})
    memory, rows = Memory(), np.arange(9)
    first, second = memory.taken(batch, rows), memory.taken(batch, rows[::-1].copy())
    place = first.client.ctypes.data
    assert second.client.ctypes.data != place and first.client.tolist() == list(range(9))
    del first
    assert memory.taken(batch, rows[3:]).client.ctypes.data == place


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.floats(0, 1), st.integers(0, 2**62))
def test_thinning_draws_each_request_or_each_client(clients: list[int], share: float, seed: int) -> None:
    client, kept = np.array(clients, np.uint32), np.empty(len(clients), np.int64)
    count = scale.thin_requests(len(clients), np.uint64(seed), share, 7, kept)
    draws = [naive.unit_of(random_of(seed, 7 + i, naive.REQUESTS)) for i in range(len(clients))]
    assert kept[:count].tolist() == [i for i, draw in enumerate(draws) if draw <= share]
    count = scale.thin_clients(client, np.uint64(seed), share, kept)
    draws = [naive.unit_of(random_of(seed, who, naive.CLIENTS)) for who in clients]
    assert kept[:count].tolist() == [i for i, draw in enumerate(draws) if draw <= share]


@given(
    st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=50),
    st.integers(-(10**15), 10**15),
    st.floats(1e-3, 1e4),
)
@settings(deadline=None)
def test_squeezed_stamps_are_as_near_to_their_origin_as_the_factor_says(
    stamps: list[int], origin: int, factor: float
) -> None:
    at_ns = np.array(stamps, np.int64)
    scale.squeeze(at_ns, origin, factor)
    assert at_ns.tolist() == [origin + round((at - origin) / factor) for at in stamps]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5_000), min_size=2, max_size=200), st.integers(1, 300), st.integers(1, 100))
def test_counts_in_windows_are_those_of_the_definition(stamps: list[int], window: int, batch: int) -> None:
    at_ns = np.array(sorted(stamps), np.int64)
    windows = int(at_ns[-1] - at_ns[0] + 1) // window
    words, sums = np.zeros((1, 2), np.int64), np.zeros((1, dispersion.BLOCKS, 2))
    bins, widths = np.array([windows], np.int64), np.array([window], np.int64)
    for first in range(0, len(at_ns), batch):
        dispersion.count_windows(at_ns[first : first + batch], int(at_ns[0]), widths, bins, words, sums)
    dispersion.end_windows(bins, words, sums)
    if windows == 0:
        assert not sums.any()
        return
    total, squares = sums[0].sum(axis=0)
    mean = total / windows
    variance = squares / windows - mean**2
    idc, beta = naive.dispersion(at_ns.tolist(), int(at_ns[0]), window, windows)
    assert variance / mean == pytest.approx(idc, abs=1e-9)
    assert (variance - mean) / mean**2 == pytest.approx(beta, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=4, max_size=100), st.integers(1, 50))
def test_moments_of_gaps_do_not_depend_on_batches(stamps: list[int], batch: int) -> None:
    at_ns = 10**18 + np.array(sorted(stamps), np.int64)
    words, histogram = np.zeros(dispersion.GAP_WORDS), np.zeros(dispersion.GAP_BINS, np.int64)
    words[dispersion.LAST_NS] = -1
    for first in range(0, len(at_ns), batch):
        dispersion.count_gaps(at_ns[first : first + batch], int(at_ns[0]), 1_000.0, words, histogram)
    gaps = np.diff(at_ns) / 1_000.0
    assert words[dispersion.GAPS] == len(gaps) == histogram.sum()
    assert words[dispersion.GAP_SQUARES] == pytest.approx((gaps**2).sum())
    assert words[dispersion.GAP_LAGGED] == pytest.approx((gaps[1:] * gaps[:-1]).sum())
