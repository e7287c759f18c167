"""Histograms in logs: written logs are read back, logs of other programs are read, and damaged ones are named."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import InputError
from replay.ledger.counters import decoded
from replay.ledger.histogram import (
    NS_2,
    NS_3,
    Histogram,
    Layout,
    decode,
    empty,
    encode,
)
from replay.ledger.percentiles import rank, values_at
from replay.results import hgrm, hlog
from replay_native.ledger import hdr
from tests.reference import naive
from tests.support import metrics_data

values_ns = st.lists(st.integers(1, hdr.HIGHEST_NS), min_size=1, max_size=200)
BASE_NS = metrics_data.START.wall_ns


def histogram_of(values: list[int], layout: Layout = NS_3) -> Histogram:
    made = empty(layout)
    hdr.record_all(made.counts, layout.half, np.array(values, np.int64) >> layout.unit)
    return made


@given(values_ns)
def test_a_histogram_reads_back_as_it_was_written(values):
    for layout in (NS_3, NS_2):
        written = histogram_of(values, layout)
        read = decode(encode(written))
        assert read.layout == layout
        assert np.array_equal(read.counts, written.counts)


@settings(max_examples=10, deadline=None)
@given(values_ns)
def test_the_package_reads_the_same_counts(values):
    ours = histogram_of(values)
    theirs = HdrHistogram.decode(encode(ours))
    assert theirs.get_total_count() == len(values)
    assert theirs.get_max_value() == ours.max
    assert theirs.get_min_value() == ours.min
    deviation = ours.mean_and_deviation()
    assert deviation[0] == pytest.approx(theirs.get_mean_value())
    assert deviation[1] == pytest.approx(theirs.get_stddev())


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([(1, 3_600_000_000, 3), (1000, 10**10, 2), (7, 10**12, 4), (1, 10**9, 5)]),
    st.lists(st.floats(0, 1), min_size=1, max_size=50),
)
def test_histograms_of_other_ranges_and_digits_are_read(header, shares):
    lowest, highest, digits = header
    theirs = HdrHistogram(lowest, highest, digits)
    values = [lowest + int(share * (highest - lowest)) for share in shares]
    for value in values:
        assert theirs.record_value(value)
    ours = decode(theirs.encode())
    assert ours.count == len(values)
    assert (ours.layout.lowest, ours.layout.highest, ours.layout.digits) == header
    assert ours.max == theirs.get_max_value()
    assert ours.percentiles([100.0]) == [theirs.get_max_value()]
    mean, deviation = ours.mean_and_deviation()
    assert mean == pytest.approx(theirs.get_mean_value())
    assert deviation == pytest.approx(theirs.get_stddev(), rel=1e-9, abs=1e-6)
    assert int(ours.values()[np.flatnonzero(ours.counts)[-1]]) == theirs.get_max_value()


@pytest.mark.parametrize("unit", [0, 1, 3, 10])
@pytest.mark.parametrize("value", [0, 1, 5, 100, 5_000, 70_001])
def test_a_mean_is_the_middle_of_its_counter(unit, value):
    layout = Layout(3, 1 << unit, 10**9)
    ours = histogram_of([value << unit], layout)
    lowest, highest = ours.min, ours.max
    assert ours.mean_and_deviation() == (lowest + (highest - lowest + 1) // 2, 0.0)


@given(
    st.binary(max_size=60)
    | st.lists(st.binary(min_size=1, max_size=1).map(lambda b: bytes([b[0] | 0x80])), max_size=40).map(
        b"".join
    ),
    st.integers(1, 300),
)
def test_the_decoder_agrees_with_its_twin_on_any_bytes(payload, room):
    try:
        numbers = naive.zigzag_leb128(payload)
    except ValueError:
        numbers = [-room - 1]
    if all(-room <= number for number in numbers) and len(expected := naive.counts_of(numbers)) <= room:
        counts = decoded(np.frombuffer(payload, np.uint8), room)
        assert counts[: len(expected)].tolist() == expected and not counts[len(expected) :].any()
    else:
        with pytest.raises(ValueError):
            decoded(np.frombuffer(payload, np.uint8), room)


@given(
    st.lists(st.integers(1, 1_000), min_size=1, max_size=300), st.sampled_from([0, 1, 50, 90, 99, 99.9, 100])
)
def test_a_percentile_is_the_smallest_value_that_covers_it(values, percentile):
    """Values below 1,000 are exact at 3 digits, so that the definition itself can be checked."""
    value = histogram_of(values).percentiles([percentile])[0]
    covered = sum(v <= value for v in values) / len(values) * 100
    below = sum(v < value for v in values) / len(values) * 100
    assert value in values
    assert covered >= percentile - 1e-9
    assert below < percentile or value == min(values)


def test_the_rank_is_javas_not_a_plain_ceil():
    assert rank(99.9, 41_000) == 40_959
    assert rank(0, 10) == 1
    assert rank(100, 10) == 10
    assert rank(50, 3) == 2
    assert values_at(np.zeros(100, np.uint64), 10, 0, (50, 99)) == [0, 0]


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_tags_are_unique_and_lead_back_to_their_route(one, other):
    tags = [hlog.tag_of("response", route, "2xx") for route in (one, other)]
    assert (tags[0] == tags[1]) == (one == other)
    for tag, route in zip(tags, (one, other), strict=True):
        assert tag.isascii() and not set(tag) & set(', \r\n\t"') - {'"'}
        assert hlog.parts_of(tag) == ("response", "2xx", route)


def test_a_tag_reads_as_the_route_it_names():
    assert hlog.tag_of("response", "GET /users/{id}", "2xx") == "response.2xx.GET_/users/{id}"
    assert hlog.tag_of("response.all") == "response.all"
    assert hlog.tag_of("service", "GET /a,b%", "5xx") == "service.5xx.GET_/a%2Cb%25"
    assert hlog.parts_of("response.all") == ("response.all", "", "")


def write_log(path: Path, *lines: bytes) -> Path:
    path.write_bytes(hlog.header(BASE_NS) + b"".join(lines))
    return path


def test_a_log_reads_back_with_absolute_times_and_its_unit(tmp_path):
    one, two = histogram_of([5_000_000] * 3), histogram_of([7_000], NS_2)
    path = write_log(tmp_path / "a.hlog", hlog.line("x", 0, 1, one), hlog.line("y_/z", 1.5, 10, two))
    log = hlog.read_hlog(path)
    assert [(i.tag, i.length_s, i.digits, i.histogram.count) for i in log.intervals] == [
        ("x", 1.0, 3, 3),
        ("y_/z", 10.0, 2, 1),
    ]
    assert log.intervals[1].start_s == pytest.approx(BASE_NS / 1e9 + 1.5, abs=0.001)
    assert log.unit == "ns"
    assert not log.problems
    assert b",5.001" in path.read_bytes() or b",5.00" in path.read_bytes()


def test_damaged_lines_are_left_out_and_named(tmp_path):
    good = hlog.line("t", 0, 1, histogram_of([1, 2, 3]))
    path = write_log(
        tmp_path / "a.hlog",
        good,
        good.replace(b"HIST", b"HI*T"),
        b"Tag=t,0.000,1.000\n",
        b"Tag=t,zero,1.000,1.0,HISTFAAA\n",
        hlog.line("before", -5, 1, histogram_of([9])),
        good[: len(good) // 2],
    )
    log = hlog.read_hlog(path)
    assert [i.tag for i in log.intervals] == ["t", "before"]
    assert log.problem_count == 4
    assert "line 7" in log.problems[0] and "base64" in log.problems[0]


def test_a_file_without_histograms_is_refused(tmp_path):
    for name, data in (("empty", b""), ("log", b"GET / 200\n" * 3), ("binary", bytes(range(256)) * 9)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="holds no histograms"):
            hlog.read_hlog(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        hlog.read_hlog(tmp_path / "missing")


def repack(change) -> bytes:
    """A good histogram with its inner header changed."""
    raw = base64.b64decode(encode(histogram_of([5])))
    inner = bytearray(zlib.decompress(raw[8:]))
    change(inner)
    packed = zlib.compress(bytes(inner))
    return base64.b64encode(struct.pack(">ii", 0x1C849314, len(packed)) + packed)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda b: b.__setitem__(slice(0, 4), b"\x0c\x72\x12\x4e"), "doubles"),
        (lambda b: b.__setitem__(slice(0, 4), b"\0\0\0\1"), "not an HDR histogram"),
        (lambda b: b.__setitem__(slice(8, 12), b"\0\0\0\1"), "shifted"),
        (lambda b: b.__setitem__(slice(12, 16), b"\0\0\0\x09"), "damaged"),
        (lambda b: b.__setitem__(slice(24, 32), b"\x7f" + b"\xff" * 7), "."),
        (lambda b: b.__setitem__(slice(24, 32), bytes(8)), "damaged"),
        (lambda b: b.__setitem__(slice(4, 8), b"\x7f\xff\xff\xff"), "cut short"),
    ],
)
def test_a_damaged_or_foreign_header_is_named(change, why):
    try:
        decode(repack(change))
    except ValueError as error:
        assert why == "." or why in str(error)
    else:
        assert why == "."


def test_histograms_of_one_tag_but_other_layouts_cannot_be_added(tmp_path):
    path = write_log(
        tmp_path / "a.hlog",
        hlog.line("t", 0, 1, histogram_of([1])),
        hlog.line("t", 1, 1, histogram_of([1], NS_2)),
    )
    with pytest.raises(InputError, match="differ in range or digits"):
        hlog.read_hlog(path).by_tag()


def test_long_tags_have_files_of_their_own(tmp_path):
    tags = [f"response.2xx.GET_/{'ä' * 200}/{last}" for last in ("one", "two")]
    written = hgrm.export({tag: histogram_of([1]) for tag in tags}, tmp_path)
    assert len({path.name for path in written}) == len(list(tmp_path.iterdir())) == 2


@given(values_ns)
def test_the_distribution_names_the_last_value_and_the_count(values):
    histogram = histogram_of(values)
    ticks = list(hgrm.ticks(histogram))
    assert ticks[-1] == hgrm.Tick(histogram.max, 100.0, len(values))
    assert [t.percentile for t in ticks] == sorted(t.percentile for t in ticks)
    assert f"Total count    = {len(values):12d}]" in hgrm.distribution(histogram)
