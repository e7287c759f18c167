"""Every quantity reads what people write, says what is wrong with the rest, and prints what it reads back."""

from __future__ import annotations

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import units
from replay.errors import UsageError

S = units.SECOND_NS


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("30s", 30 * S),
        ("10m", 600 * S),
        ("1h30m", 5400 * S),
        ("250ms", 250_000_000),
        ("50us", 50_000),
        ("50µs", 50_000),
        ("7ns", 7),
        ("2d", 172_800 * S),
        ("1.5", 1_500_000_000),
        ("0", 0),
        ("1h 30m", 5400 * S),
        (" 3 s ", 3 * S),
        (30, 30 * S),
        (0.25, S // 4),
    ],
)
def test_durations_carry_a_unit_and_a_bare_number_is_seconds(text: str, ns: int) -> None:
    assert units.parse_duration_ns(text) == ns


@pytest.mark.parametrize("text", ["", "s", "-3s", "3 parsecs", "1h30", "nan", "inf", "1e400", "3s5", "1,5s"])
def test_what_is_no_duration_is_named_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        units.parse_duration_ns(text)
    assert repr(text) in str(caught.value)
    assert "1h30m" in caught.value.hint


@pytest.mark.parametrize(("text", "meant"), [("5 sec", "5s"), ("10 minuts", "10m"), ("3 hours", "3h")])
def test_a_unit_that_is_nearly_right_is_guessed(text: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {meant}"):
        units.parse_duration_ns(text)


@given(st.integers(0, units.DURATION_NS_MAX // 2))
def test_a_duration_is_written_so_that_it_reads_back_exactly(ns: int) -> None:
    text = units.duration_text(ns)
    if ns < 1 << 53:
        assert units.parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "rate"),
    [("500/s", 500), ("50/1m", 50 / 60), ("500", 500), ("100/5s", 20), ("2/ms", 2000), ("max", math.inf)],
)
def test_rates(text: str, rate: float) -> None:
    assert units.parse_rate_per_s(text) == pytest.approx(rate)
    assert units.parse_rate_per_s(units.rate_text(rate)) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["0", "-5/s", "5/", "/s", "5/parsec", "fast", "5/0s", "nan", "1e12"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(UsageError, match="is not a rate"):
        units.parse_rate_per_s(text)


@pytest.mark.parametrize(
    ("text", "factor"), [("2", 2), ("2x", 2), ("200%", 2), ("0.5", 0.5), (4, 4), ("1.5X", 1.5)]
)
def test_factors(text: str, factor: float) -> None:
    assert units.parse_factor(text) == factor


@pytest.mark.parametrize("text", ["0", "-1", "x", "", "2 x 3", "nan", "1e99"])
def test_what_is_no_factor(text: str) -> None:
    with pytest.raises(UsageError, match="is not a factor"):
        units.parse_factor(text)


def test_shares_and_sizes() -> None:
    assert units.parse_share("25%") == 0.25 == units.parse_share("0.25")
    assert units.parse_size_bytes("64k") == 65_536 == units.parse_size_bytes("64KiB")
    assert units.parse_size_bytes("1MB") == 1_000_000
    for text in ("101%", "2", "-1%", "half"):
        with pytest.raises(UsageError, match="is not a share"):
            units.parse_share(text)
    for text in ("many", "5 lightyears", "-1", ""):
        with pytest.raises(UsageError, match="is not a size"):
            units.parse_size_bytes(text)


BERLIN = units.parse_zone("Europe/Berlin")


def at(text: str) -> int:
    return units.datetime_to_ns(dt.datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("18:00", "2026-03-01T18:00:00+01:00"),
        ("09:00", "2026-03-02T09:00:00+01:00"),
        ("10:30:15.25", "2026-03-01T10:30:15.250+01:00"),
        ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00+00:00"),
        ("2026-03-01T12:00", "2026-03-01T12:00:00+01:00"),
        ("2026-03-02", "2026-03-02T00:00:00+01:00"),
        ("+10m", "2026-03-01T10:10:00+01:00"),
    ],
)
def test_moments_are_found_in_the_recording(text: str, moment: str) -> None:
    begin, end = at("2026-03-01T10:00:00+01:00"), at("2026-03-02T10:00:00+01:00")
    assert units.parse_moment(text).resolve_ns(begin, end, BERLIN) == at(moment)


def test_a_time_of_day_outside_the_recording_is_of_its_first_day() -> None:
    begin, end = at("2026-03-01T10:00:00+01:00"), at("2026-03-01T12:00:00+01:00")
    assert units.parse_moment("09:00").resolve_ns(begin, end, BERLIN) == at("2026-03-01T09:00:00+01:00")


def test_a_time_of_day_over_the_clock_change() -> None:
    begin, end = at("2026-03-28T12:00:00+01:00"), at("2026-03-29T12:00:00+02:00")
    assert units.parse_moment("09:00").resolve_ns(begin, end, BERLIN) == at("2026-03-29T09:00:00+02:00")


@pytest.mark.parametrize("text", ["25:00", "18:60", "+", "+10 parsecs", "yesterday", "", "2026-13-01"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(UsageError, match="is not a moment"):
        units.parse_moment(text)


def test_zones() -> None:
    assert units.parse_zone("UTC") is dt.UTC
    for text in ("+02:00", "+0200"):
        assert units.parse_zone(text).utcoffset(None) == dt.timedelta(hours=2)
    assert units.parse_zone("-0430").utcoffset(None) == -dt.timedelta(hours=4, minutes=30)
    with pytest.raises(UsageError, match="did you mean Europe/Berlin"):
        units.parse_zone("Europe/Belrin")
    with pytest.raises(UsageError, match="is not a time zone"):
        units.parse_zone("/etc/passwd")


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"), (850, "850 ns"), (999.7, "1.00 µs"), (41_234, "41.2 µs"), (1_240_000, "1.24 ms"),
        (999_700_000, "1.00 s"), (3_070_000_000, "3.07 s"), (125 * S, "2 min 5 s"),
    ],
)  # fmt: skip
def test_latencies_print_three_digits(ns: float, text: str) -> None:
    assert units.format_latency(ns) == text


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (30 * S, "30 s"), (1_500_000_000, "1.5 s"), (60 * S, "1 min"), (90 * S, "1 min 30 s"),
        (5400 * S, "1 h 30 min"), (187_200 * S, "2 d 4 h"), (0, "0 ns"),
    ],
)  # fmt: skip
def test_lengths_print_two_units_at_most(ns: int, text: str) -> None:
    assert units.format_duration(ns) == text


def test_figures_for_people() -> None:
    assert units.format_count(30_969) == "30,969"
    assert [units.format_rate(rate) for rate in (20_000, 8.333, 5 / 60)] == ["20,000/s", "8.33/s", "5.00/min"]
    assert units.format_bytes(1.2 * (1 << 20)) == "1.20 MiB"
    assert units.format_moment(0, units.parse_zone("+01:00")) == "1970-01-01 01:00:00 +01:00"


@given(st.floats(0, 1))
def test_a_share_never_reads_as_all_or_nothing_when_it_is_not(share: float) -> None:
    text = units.format_share(share)
    assert (text == "100%") == (share == 1)
    assert (text == "0%") == (share == 0)
