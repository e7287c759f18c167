"""Logs of old writers: Java's V0 and V1 encodings (jHiccup, YCSB), and what early C writers got wrong in V1 and V2."""

from __future__ import annotations

import base64
import re
import struct
import zlib

import numpy as np
import pytest

from replay.comparison.sides import load_sides
from replay.errors import UsageError
from replay.ledger.histogram import (
    Histogram,
    Layout,
    decode,
    empty,
    encode,
)
from replay.results.hlog import read_hlog
from replay_native.ground import jit
from replay_native.ledger import hdr
from tests.support.places import DATA

jit.warm(["ledger.hdr"])

LOGS = DATA / "hlogs"
"""Written by tests/java/old/WriteOldHlog.java with HdrHistogram 1.2.1 (V0) and 2.0.1 (V1)."""

FACTS = re.compile(r"# count (\d+), p50 (\d+), p99 (\d+), max (\d+)")
HEADER, OUTER = struct.Struct(">iiiiqqd"), struct.Struct(">ii")


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_logs_of_old_java_writers(version):
    path = LOGS / f"{version}.hlog"
    log = read_hlog(path)
    facts = [tuple(map(int, found)) for found in FACTS.findall(path.read_text())]
    assert not log.problems and len(facts) == len(log.intervals) == 4
    assert log.intervals[0].start_s == pytest.approx(1403476110.183 + 0.127)
    for interval, (count, p50, p99, top) in zip(log.intervals, facts, strict=True):
        histogram = interval.histogram
        assert histogram.count == count
        for ours, theirs in zip(
            (*histogram.percentiles([50, 99]), histogram.max), (p50, p99, top), strict=True
        ):
            # Version 1 of the library returns the lowest value of a counter. Later versions and replay return the
            # highest.
            assert theirs <= ours <= theirs * (1 + 10.0 ** (1 - interval.digits))
            assert version == "v0" or ours == theirs


def test_old_logs_do_not_say_their_unit():
    with pytest.raises(UsageError, match="does not state the unit"):
        load_sides(str(LOGS / "v0.hlog"), str(LOGS / "v1.hlog"))


def made() -> Histogram:
    histogram = empty(Layout(3, 1, 3_600_000_000))
    values = np.random.default_rng(1).integers(1, 1_000_000, 500)
    hdr.record_all(histogram.counts, histogram.layout.half, values)
    return histogram


def v1(histogram: Histogram, *, word: int = 8, length: int | None = None, cut: int = 0) -> bytes:
    """V1, as Java and C write it; `cut` bytes are missing at the end."""
    counts = histogram.counts.astype(f">i{word}").tobytes()
    layout = histogram.layout
    length = len(counts) if length is None else length
    inner = HEADER.pack(
        0x1C849301 + (word << 4), length, 0, layout.digits, layout.lowest, layout.highest, 1.0
    )
    packed = zlib.compress(inner + counts)
    whole = OUTER.pack(0x1C849302 + (word << 4), len(packed)) + packed
    return base64.b64encode(whole[: len(whole) - cut])


@pytest.mark.parametrize("word", [2, 4, 8])
def test_counters_of_any_size(word):
    histogram = made()
    assert (decode(v1(histogram, word=word)).counts == histogram.counts).all()


def test_a_length_that_counts_the_header_in_is_understood():
    histogram = made()
    found = decode(v1(histogram, length=8 * histogram.counts.size + HEADER.size))
    assert (found.counts == histogram.counts).all()
    raw = base64.b64decode(encode(histogram))
    inner = bytearray(zlib.decompress(raw[OUTER.size :]))
    struct.pack_into(">i", inner, 4, len(inner))
    packed = zlib.compress(bytes(inner))
    text = base64.b64encode(OUTER.pack(0x1C849314, len(packed)) + packed)
    assert (decode(text).counts == histogram.counts).all()


def test_the_eight_bytes_that_early_c_writers_forgot():
    histogram = made()
    length = 8 * histogram.counts.size + HEADER.size
    assert (decode(v1(histogram, length=length, cut=8)).counts == histogram.counts).all()


def test_a_cut_that_may_have_taken_counters_is_refused():
    full = made()
    full.counts[-40:] = np.random.default_rng(2).integers(1, 30_000, 40)
    with pytest.raises(ValueError, match="cut short"):
        decode(v1(full, cut=8))
    for cut in (1, 7, 9, 100):
        with pytest.raises(ValueError, match="cut short"):
            decode(v1(made(), cut=cut))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (v1(made(), length=10**6), "payload is cut short"),
        (v1(made(), length=-1), "payload is cut short"),
        (base64.b64encode(OUTER.pack(0x1C849312, 4) + b"abcd"), "damaged"),
        (base64.b64encode(OUTER.pack(0x0C72124F, 4) + b"abcd"), "doubles"),
        (base64.b64encode(OUTER.pack(0x1C849305, 4) + b"abcd"), "not an HDR histogram"),
        (base64.b64encode(OUTER.pack(0x1C849384, 9) + b"abcd"), "cut short"),
    ],
)
def test_damage_is_named(text, said):
    with pytest.raises(ValueError, match=said):
        decode(text)


def test_more_than_the_range_holds_is_refused_before_it_is_inflated():
    layout = Layout(3, 1, 10_000)
    inner = HEADER.pack(0x1C849381, 1 << 27, 0, layout.digits, layout.lowest, layout.highest, 1.0)
    packed = zlib.compress(inner + bytes(1 << 24))
    with pytest.raises(ValueError, match="holds more than its range"):
        decode(base64.b64encode(OUTER.pack(0x1C849382, len(packed)) + packed))
