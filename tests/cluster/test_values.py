"""Scenarios as they travel to agents: every value arrives exactly as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from replay.cluster.parts import without_places
from replay.cluster.values import (
    check_fits,
    decoded,
    encoded,
    environment,
    exact,
    for_agents,
    raw,
    settled,
)
from replay.errors import UsageError
from replay.settings.file import load
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


KAFKA: dict[str, Any] = {
    "target": "kafka://127.0.0.1:9093/orders",
    "kafka": {
        "security_protocol": "SASL_SSL",
        "sasl_plain_username": "$KAFKA_USER",
        "sasl_plain_password": "${KAFKA_PASSWORD}",
    },
}


def test_agents_get_the_certificates_and_the_credentials_of_a_kafka_target(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("certificates")
    table = {**KAFKA["kafka"], "ssl_cafile": str(tmp_path / "ca.pem")}
    scenario = load(None, {**KAFKA, "kafka": table}, {})
    shared, files = trio.run(for_agents, scenario, 2, 0)
    assert files == {"file-0.pem": b"certificates"} and shared.kafka.ssl_cafile == "file-0.pem"
    found = []
    for agent in range(2):
        area = tmp_path / f"agent-{agent}"
        area.mkdir()
        found.append(settled(decoded(encoded(shared)), files, area, (), 1))
        assert Path(found[-1].kafka.ssl_cafile).read_text() == "certificates"
    # Each agent has the file in a folder of its own. The scenarios are the same all the same.
    assert found[0].saved() != found[1].saved()
    assert without_places(found[0].saved()) == without_places(found[1].saved())
    environ = {"KAFKA_USER": "u", "KAFKA_PASSWORD": "p", "OTHER": "x"}
    assert environment(scenario, environ) == {"KAFKA_USER": "u", "KAFKA_PASSWORD": "p"}
    with pytest.raises(UsageError, match="KAFKA_PASSWORD is not set"):
        environment(scenario, {"KAFKA_USER": "u"})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (KAFKA | {"kafka": {"answers": "paid"}}, "kafka.answers: every agent would read all of 'paid'"),
        ({"target": "http://127.0.0.1:9", "rate": "max", "duration": "1s"}, "a closed loop has none"),
    ],
)
def test_what_cannot_be_cut_is_refused(settings: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_fits(load(None, settings, {}))


def test_records_can_be_cut() -> None:
    check_fits(load(None, KAFKA, {}))
