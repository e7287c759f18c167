"""Only loopback until a host is allowed; limits refuse before anything is sent, and name the flag to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay import units
from replay.errors import LimitError, UsageError
from replay.scenario.file import load
from replay.scenario.settings import Scenario
from replay.scenario.target import parse_target
from replay.schedule.plan import Plan, make_schedule
from replay.schedule.safety import allowed, check_addresses, check_plan, is_loopback

from .trace_data import Row, write_trace

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


def test_the_environment_allows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAY_ALLOW", "a.example, *.b.example")
    check_addresses("a.example", FAR, allow())
    check_addresses("x.b.example", FAR, allow())


@pytest.mark.parametrize("pattern", ["*", "*.example", "http://a.example", "a b", "*.*.example"])
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
    with pytest.raises(LimitError, match="no highest rate"):
        check(plan(tmp_path / "a", 5, 3, rate="max"), FAR)
    with pytest.raises(LimitError, match="not known"):
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
