"""Scenarios as they travel to agents: every value arrives exactly as it is."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.cluster.values import decoded, encoded, exact, raw
from replay.errors import UsageError
from replay.settings.kinds import Duration, Factor, Rate, Scale, Share
from replay.settings.kinds.kind import Kind
from replay.settings.kinds.lists import HostNames
from replay.settings.scenario import Scenario
from tests.settings.test_kinds import EXAMPLES

FACTORS = st.floats(1e-3, 1e3)


@given(FACTORS, st.floats(1e-3, 1e6), st.integers(1, 1 << 50), st.floats(0, 1))
def test_numbers_arrive_exactly(factor: float, rate: float, duration_ns: int, share: float) -> None:
    given_ = Scenario(
        scale=Scale([("POST /v1/users", factor), ("*", 2 * factor)]),
        rate_per_s=Rate(rate),
        speed=Factor(factor),
        duration_ns=Duration(duration_ns),
        sample=Share(share),
    )
    assert decoded(encoded(given_)) == given_


@pytest.mark.parametrize(
    ("kind", "example"), EXAMPLES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_every_kind_of_setting_arrives(kind: type[Kind], example: object) -> None:
    value = kind.parse(example)
    plain = msgspec.msgpack.decode(msgspec.msgpack.encode(value, enc_hook=raw))
    found = exact(kind, plain)
    assert type(found) is kind and found == value


def test_pairs_arrive_as_pairs() -> None:
    names = HostNames([("www.example", "staging.example")])
    found = exact(HostNames, [["www.example", "staging.example"]])
    assert found == names


@pytest.mark.parametrize("data", [b"", b"\xff", msgspec.msgpack.encode({"rate": []}), b"\x93\x01\x02\x03"])
def test_what_is_no_scenario_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        decoded(data)
