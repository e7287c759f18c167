"""Each kind of setting: its examples are read, what it prints is read back, and its schema agrees with its parser."""

from __future__ import annotations

import datetime as dt
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import units
from replay.errors import UsageError
from replay.settings import kinds
from replay.settings.file import load
from replay.settings.kinds import Kind, read_setting

KINDS = [kind for name in dir(kinds) if kinds.is_kind(kind := getattr(kinds, name)) and kind is not Kind]
EXAMPLES = [(kind, example) for kind in KINDS for example in kind.examples]
ACCEPTED: dict[type[Kind], list[Any]] = {
    kinds.Duration: ["1h 30m", " 5s ", "1.5s", ".5s", "1e3", 0, 0.25, "10us", "1d"],
    kinds.Rate: ["max", "50 / 1m", "1e3", 0.5, "5/s"],
    kinds.Factor: ["2x", "2 X", "150 %", 1, "0.5"],
    kinds.Share: ["100%", 0, 1, "0.5", "12.5 %"],
    kinds.Size: ["64KiB", "1MB", "1.5g", "7b", 0, "64 k"],
    kinds.Count: ["auto", "7", 1],
    kinds.SizeRange: ["< 64KiB", 5, ">=1", "<=2MiB"],
    kinds.Acks: ["1", "all", 1, -1],
}


def is_valid(kind: type[Kind], value: Any) -> bool:
    return bool(jsonschema.Draft7Validator(kind.schema).is_valid(value))


@pytest.mark.parametrize(("kind", "example"), EXAMPLES, ids=str)
def test_an_example_is_read_and_printed_so_that_it_reads_back(kind: type[Kind], example: Any) -> None:
    value = read_setting(kind, example)
    assert read_setting(kind, value.written()) == value
    assert is_valid(kind, example) and is_valid(kind, value.written())


@given(
    st.floats(0, 1), st.floats(1e-3, 1e8), st.floats(1e-6, 1e9), st.integers(0, 2**53), st.integers(0, 2**53)
)
def test_a_number_is_printed_so_that_it_reads_back_as_the_same(
    share: float, rate: float, factor: float, ns: int, size: int
) -> None:
    scale = kinds.Scale([("GET /a", factor), ("*", share + 1e-6)])
    for value in (
        kinds.Share(share), kinds.Rate(rate), kinds.Factor(factor), kinds.Duration(ns), kinds.Size(size), scale,
    ):  # fmt: skip
        assert read_setting(type(value), value.written()) == value
        assert is_valid(type(value), value.written())


def test_a_share_of_whole_percents_is_printed_in_percent() -> None:
    assert [kinds.Share(n / 100).written() for n in range(101)] == [f"{n}%" for n in range(101)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_schema_accepts_all_that_the_parser_accepts(kind: type[Kind]) -> None:
    for value in ACCEPTED.get(kind, []):
        read_setting(kind, value)
        assert is_valid(kind, value), value


@given(st.sampled_from(KINDS), st.text("0123456789.smhKiMGBx%/<>=a utolecdrp-+", max_size=7))
def test_what_the_parser_accepts_the_schema_accepts(kind: type[Kind], text: str) -> None:
    try:
        read_setting(kind, text)
    except (ValueError, UsageError):
        return
    assert is_valid(kind, text) or not text.strip()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("wrong", [True, None, {"a": 1}], ids=str)
def test_a_value_of_another_type_is_refused_with_the_forms(kind: type[Kind], wrong: Any) -> None:
    with pytest.raises(ValueError, match="is of the wrong type") as caught:
        read_setting(kind, wrong)
    assert kind.forms in str(caught.value)


def test_programs_may_give_times_as_timedelta() -> None:
    scenario = load(None, {"timeout": dt.timedelta(milliseconds=250), "duration": dt.timedelta(hours=1)})
    assert (scenario.timeout_ns, scenario.duration_ns) == (250_000_000, 3600 * units.SECOND_NS)
    with pytest.raises(UsageError, match="timeout: '-1000000us' is not a time"):
        load(None, {"timeout": dt.timedelta(seconds=-1)})
