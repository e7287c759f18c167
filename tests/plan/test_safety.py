"""Only loopback until a host is allowed; limits refuse before anything is sent, and name the flag to type."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay import units
from replay.errors import LimitError, UsageError
from replay.plan.safety import (
    allowed,
    allowed_hosts,
    check_addresses,
    check_plan,
    is_loopback,
    parse_address,
)
from replay.plan.schedule import Plan, make_schedule
from replay.protocols.registry import parse_target
from replay.settings.file import load
from replay.settings.scenario import Scenario
from tests.support.trace_data import Row, write_trace

FAR = ["192.0.2.7"]
NEAR = ["127.0.0.1"]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPLAY_ALLOW", raising=False)


def allow(*hosts: str, **flags: object) -> Scenario:
    return load(flags={"allow": list(hosts), **flags})


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False), ("192.0.2.1", False), ("::ffff:192.0.2.1", False), ("fe80::1%eth0", False),
    ],
)  # fmt: skip
def test_what_is_this_machine(address: str, local: bool) -> None:
    assert is_loopback(address) is local


def test_one_address_beyond_this_machine_is_enough_to_refuse() -> None:
    check_addresses("localhost", ["127.0.0.1", "::1"], allow())
    with pytest.raises(LimitError) as caught:
        check_addresses("localhost", ["127.0.0.1", "192.0.2.7"], allow())
    assert "localhost (192.0.2.7)" in str(caught.value)
    assert "--allow localhost" in caught.value.hint


@pytest.mark.parametrize(
    ("pattern", "host", "address", "good"),
    [
        ("api.staging.example", "api.staging.example", "192.0.2.7", True),
        ("API.staging.example.", "api.Staging.example", "192.0.2.7", True),
        ("*.staging.example", "api.staging.example", "192.0.2.7", True),
        ("*.staging.example", "staging.example", "192.0.2.7", False),
        ("*.staging.example", "evilstaging.example", "192.0.2.7", False),
        ("staging.example", "api.staging.example", "192.0.2.7", False),
        ("192.0.2.7", "api.example", "192.0.2.7", True),
        ("192.0.2.0/24", "api.example", "192.0.2.7", True),
        ("192.0.2.0/24", "api.example", "198.51.100.1", False),
        ("2001:db8::/32", "[2001:db8::1]", "2001:db8::1", True),
        ("10.0.0.0/8", "api.example", "10.9.8.7", True),
        ("10.0.0.0/8", "api.example", "11.0.0.1", False),
        ("10.0.0.0/8", "::ffff:10.9.8.7", "::ffff:10.9.8.7", True),
        ("10.9.8.7/8", "api.example", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "api.example", "10.0.0.1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1", "::ffff:10.0.0.1", True),
        ("::ffff:a00:1", "api.example", "10.0.0.1", True),
        ("[::ffff:10.0.0.1]", "api.example", "::ffff:a00:1", True),
        ("::ffff:10.0.0.0/104", "api.example", "10.200.0.1", True),
        ("::ffff:10.0.0.0/104", "api.example", "11.0.0.1", False),
        ("::/0", "api.example", "10.0.0.1", False),
        ("0.0.0.0/0", "api.example", "::ffff:10.0.0.1", True),
        ("fd00::/8", "api.example", "fd77::9", True),
        ("fd00::/8", "api.example", "fe80::9", False),
        ("fe80::1%eth0", "fe80::1%eth0", "fe80::1%eth0", True),
        ("fe80::%eth0/64", "api.example", "fe80::2", True),
        ("2001:DB8:0::1", "api.example", "2001:db8::1", True),
    ],
)
def test_hosts_are_allowed_by_name_suffix_address_or_network(
    pattern: str, host: str, address: str, good: bool
) -> None:
    if good:
        check_addresses(host, [address], allow(pattern))
    else:
        with pytest.raises(LimitError):
            check_addresses(host, [address], allow(pattern))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("api.example", "192.0.2.7"), ("API_1.example.", "192.0.2.7"), ("192.0.2.7", "192.0.2.7"), ("10.1", "10.0.0.1"),
        ("::ffff:192.0.2.7", "::ffff:192.0.2.7"), ("2001:db8::1", "2001:db8::1"), ("fe80::1%eth0", "fe80::1%eth0"),
        ("b\u00fccher.example", "192.0.2.7"), ("name with space", "192.0.2.7"), ("-odd", "2001:db8::1"),
    ],
)  # fmt: skip
def test_what_a_refusal_proposes_is_enough(host: str, address: str) -> None:
    with pytest.raises(LimitError) as caught:
        check_addresses(host, [address], allow())
    proposed = caught.value.hint.partition("--allow ")[2]
    check_addresses(host, [address], allow(proposed))


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_an_address_inside_ipv6_is_the_ipv4_address(address: ipaddress.IPv4Address, bits: int) -> None:
    """Whether a network is written as IPv4 or inside IPv6, and the address too, is all the same."""
    network = ipaddress.ip_network((address, bits), strict=False)
    other = ipaddress.ip_address(int(address) ^ (1 << 31))
    written = (str(network), f"::ffff:{network.network_address}/{96 + bits}")
    for pattern in written:
        permitted = allowed_hosts([pattern])
        for found in (address, other):
            expected = found in network
            assert permitted.address(parse_address(str(found))) is expected
            assert permitted.address(parse_address(f"::ffff:{found}")) is expected


def test_the_environment_allows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAY_ALLOW", "a.example, *.b.example")
    check_addresses("a.example", FAR, allow())
    check_addresses("x.b.example", FAR, allow())


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "*.example",
        "http://a.example",
        "a b",
        "*.*.example",
        "10.0.0",
        "10.0.0.256",
        "10.0.0.0/33",
        "a.7",
        "*.7.8",
        "10.0.0.1:80",
        "::1/129",
    ],
)
def test_what_cannot_be_allowed(pattern: str) -> None:
    with pytest.raises(UsageError, match="is not a host that can be allowed"):
        allowed(allow(pattern))


def plan(tmp_path: Path, gap_ns: int, rows: int, **flags: object) -> tuple[Plan, Scenario]:
    trace = write_trace(tmp_path / "t.trace", [Row(gap_ns * n) for n in range(rows)])
    scenario = load(flags={"target": "http://staging.example", **flags})
    return make_schedule(trace, scenario).plan, scenario


def check(made: tuple[Plan, Scenario], addresses: list[str], origins: tuple[str, ...] = ()) -> None:
    check_plan(made[0], parse_target("http://staging.example"), addresses, origins, made[1])


def test_beyond_this_machine_a_busy_second_needs_a_flag(tmp_path: Path) -> None:
    made = plan(tmp_path, units.SECOND_NS // 2000, 3000)
    check(made, NEAR)
    with pytest.raises(LimitError, match="busiest second has 2,000 requests; the limit beyond") as caught:
        check(made, FAR)
    assert "--max-rate 2000/s" in caught.value.hint


def test_the_flag_that_a_refusal_names_is_enough(tmp_path: Path) -> None:
    check(plan(tmp_path, units.SECOND_NS // 2000, 3000, max_rate="2000/s"), FAR)


def test_beyond_this_machine_a_long_plan_needs_a_flag(tmp_path: Path) -> None:
    made = plan(tmp_path, 4000 * units.SECOND_NS, 2)
    check(made, NEAR)
    with pytest.raises(LimitError, match="the plan takes 1 h 6 min") as caught:
        check(made, FAR)
    assert "--max-duration 67m" in caught.value.hint


def test_limits_that_are_asked_for_hold_on_loopback_too(tmp_path: Path) -> None:
    made = plan(tmp_path, units.SECOND_NS // 100, 300, max_rate="50/s", max_duration="1s")
    with pytest.raises(LimitError, match="the limit is 50"):
        check(made, NEAR)


def test_a_closed_loop_beyond_this_machine_needs_both(tmp_path: Path) -> None:
    with pytest.raises(LimitError, match="no maximum rate"):
        check(plan(tmp_path / "a", 5, 3, rate="max"), FAR)
    with pytest.raises(LimitError, match="unknown"):
        check(plan(tmp_path / "b", 5, 3, rate="max", max_rate="max"), FAR)
    check(plan(tmp_path / "c", 5, 3, rate="max", max_rate="max", duration="5s"), FAR)


@pytest.mark.parametrize("origin", ["staging.example", "Staging.Example:443", "staging.example."])
def test_the_recordings_own_origin_needs_a_flag_of_its_own(tmp_path: Path, origin: str) -> None:
    made = plan(tmp_path, 5, 3, allow=["staging.example"])
    check(made, NEAR, (origin,))
    check(made, FAR, ("www.example",))
    with pytest.raises(LimitError, match="may be production") as caught:
        check(made, FAR, (origin,))
    assert "--allow-production" in caught.value.hint
    check((made[0], load(flags={"allow_production": True})), FAR, (origin,))
