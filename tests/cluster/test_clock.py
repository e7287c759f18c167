"""Clocks: what exchanges show of them, and that a start is as exact as the run says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.cluster.agent_clock import AgentClock, same_clock
from replay.cluster.clock import PeerClock, sample
from replay.staging.sink import Identity, Sink
from tests.support.certificates import Authority
from tests.support.network_namespace import FAR, NetworkNamespace
from tests.support.ports import free_port

from .forwarder import Forwarder
from .support import evening, running, until, url

MS = 1_000_000
DELAY = st.integers(0, 500 * MS)


@given(st.integers(-(10**15), 10**15), st.lists(st.tuples(DELAY, DELAY), min_size=1, max_size=20))
def test_the_true_offset_is_always_within_the_bound(offset: int, delays: list[tuple[int, int]]) -> None:
    clock, now = PeerClock(), 0
    for out, back in delays:
        now += 250 * MS
        came = now + out + offset
        clock.add(now, came, came + 10, now + out + 10 + back)
        now += out + back + 10
        found = clock.estimate(now)
        assert abs(found.offset_ns - offset) <= found.bound_ns
    assert clock.jumped_ns == 0


@given(
    st.integers(-(10**15), 10**15),
    st.floats(-500, 500),
    st.lists(st.tuples(DELAY, DELAY), min_size=1, max_size=20),
    st.integers(0, 20_000 * MS),
)
def test_the_bound_holds_for_a_clock_that_drifts_and_for_an_instant_to_come(
    offset: int, ppm: float, delays: list[tuple[int, int]], ahead: int
) -> None:
    def shown(at: int) -> int:
        return at + offset + round(at * ppm / 1e6)

    clock, now = PeerClock(), 0
    for out, back in delays:
        now += 250 * MS
        came = shown(now + out)
        clock.add(now, came, came, now + out + back)
        now += out + back
    found = clock.estimate(now + ahead)
    assert abs(found.offset_ns - (shown(now + ahead) - now - ahead)) <= found.bound_ns


def test_the_longer_a_drifting_clock_is_watched_the_better_it_is_known() -> None:
    bounds = []
    for exchanges in (4, 64):
        clock = PeerClock()
        for number in range(exchanges):
            sent = number * 250 * MS
            came = sent + MS // 10 + sent * 500 // 1_000_000
            clock.add(sent, came, came, sent + MS // 5)
        bounds.append(clock.estimate(sent + 1_500 * MS).bound_ns)
    assert bounds[1] < bounds[0] / 2


def test_a_drift_that_changes_widens_the_bound() -> None:
    clock, offset = PeerClock(), 0
    for number in range(60):
        sent = number * 250 * MS
        offset += (250 * MS * (400 if number > 40 else -400)) // 1_000_000
        clock.add(sent, sent + offset + MS // 100, sent + offset + MS // 100, sent + MS // 50)
    found = clock.estimate(sent)
    assert clock.jumped_ns == 0 and abs(found.offset_ns - offset) <= found.bound_ns


def test_stamps_that_contradict_each_other_are_no_sample() -> None:
    assert sample(100, 50, 40, 200) is None and sample(100, 50, 60, 90) is None


@pytest.mark.parametrize("ppm", [500, -500])
def test_a_drift_is_measured(ppm: int) -> None:
    clock = PeerClock()
    for number in range(200):
        sent = number * 250 * MS
        came = sent + MS + sent * ppm // 1_000_000
        clock.add(sent, came, came, sent + 2 * MS)
        if number == 20:
            clock.reference(sent)
    drift_ppm, change = clock.drift()
    assert abs(drift_ppm - ppm) < 60 and change * ppm > 0


def test_a_clock_that_is_set_is_noticed() -> None:
    clock = PeerClock()
    for number in range(40):
        sent = number * 250 * MS
        came = sent + MS + (700 * MS if number >= 30 else 0)
        clock.add(sent, came, came, sent + 2 * MS)
        if number == 20:
            clock.reference(sent)
    assert abs(clock.jumped_ns - 700 * MS) < 5 * MS
    assert clock.drift() == (0.0, 0)
    assert abs(clock.estimate(40 * 250 * MS).offset_ns - 700 * MS) < 5 * MS


@given(
    st.lists(st.tuples(DELAY, DELAY), min_size=40, max_size=40),
    st.sampled_from([-5_000, -1_200, 1_200, 5_000]),
)
def test_a_jump_is_stated_as_exactly_as_the_exchanges_know_it_and_is_no_drift(
    delays: list[tuple[int, int]], jump_ms: int
) -> None:
    clock, now = PeerClock(), 0
    for number, (out, back) in enumerate(delays):
        now += 250 * MS
        if number == 30:
            at = now + out + back
            before = clock.estimate(at)
        came = now + out + (jump_ms * MS if number >= 30 else 0)
        clock.add(now, came, came, now + out + back)
        now += out + back
        if number == 20:
            clock.reference(now)
    assert abs(clock.jumped_ns - jump_ms * MS) <= before.bound_ns + clock.estimate(at).bound_ns
    assert clock.drift() == (0.0, 0)


@given(
    st.integers(-(10**15), 10**15),
    st.floats(-500, 500),
    st.lists(st.tuples(DELAY, DELAY), min_size=4, max_size=40),
    st.integers(2, 30),
)
def test_after_the_run_the_start_is_known_at_least_as_exactly_and_the_truth_is_in_the_bound(
    offset: int, ppm: float, delays: list[tuple[int, int]], starts_after: int
) -> None:
    def shown(at: int) -> int:
        return at + offset + round(at * ppm / 1e6)

    clock, now, start = PeerClock(), 0, None
    for number, (out, back) in enumerate(delays):
        now += 250 * MS
        came = shown(now + out)
        clock.add(now, came, came, now + out + back)
        now += out + back
        if number == min(starts_after, len(delays) - 2):
            start = now + 1_500 * MS
            used = clock.reference(start)
    assert start is not None
    found = clock.settled(used, start)
    assert found.offset_ns == used.offset_ns and found.bound_ns <= used.bound_ns
    assert abs(found.offset_ns - (shown(start) - start)) <= found.bound_ns


def test_exchanges_on_both_sides_of_the_start_narrow_its_bound() -> None:
    clock = PeerClock()
    for number in range(40):
        sent = number * 250 * MS
        clock.add(sent, sent + MS // 10, sent + MS // 10, sent + MS // 5)
        if number == 8:
            start = sent + 1_500 * MS
            used = clock.reference(start)
    assert clock.settled(used, start).bound_ns < used.bound_ns / 2


def test_one_machine_has_one_clock_until_an_exchange_contradicts_it() -> None:
    clock = PeerClock(is_same=True)
    for number in range(10):
        sent = number * 250 * MS
        clock.add(sent, sent + 3 * MS, sent + 3 * MS, sent + 4 * MS)
    used = clock.reference(sent + 1_500 * MS)
    assert used == (0, 0) == clock.settled(used, sent + 1_500 * MS) and clock.drift() == (0.0, 0)
    # A machine restored from the same snapshot has the same identity, but a clock of its own.
    sent += 250 * MS
    clock.add(sent, sent + 40 * MS, sent + 40 * MS, sent + MS)
    assert not clock.is_same
    clock.add(sent + MS, sent + 40 * MS, sent + 40 * MS, sent + 2 * MS)
    assert clock.settled(used, sent).bound_ns > 0


def test_a_clock_that_a_test_alters_is_not_the_machines_own() -> None:
    assert AgentClock().identity == same_clock() != ""
    assert AgentClock.of("-3s").identity == ""


@pytest.mark.whole
def test_agents_on_this_machine_read_the_coordinators_clock(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=2, per_second=100)
    with Sink() as sink, running(tmp_path, "t.trace", "--target", url(sink), "--cluster", "local:2") as run:
        _, printed = run.wait()
    document = run.document()
    assert document["accounts"]["ok"] == 200, printed
    assert [agent["clock"]["bound_ns"] for agent in document["agents"]] == [0, 0]
    assert "CLOCK_UNCERTAIN" not in {reason["code"] for reason in document["validity"]["reasons"]}


def agents_through(
    tmp_path: Path, stack: ExitStack, port: int, ways: list[dict[str, float]], skew: str = "-3s"
) -> list[Forwarder]:
    """One agent behind each forwarder, with this clock."""
    token = tmp_path / "RUN.agents" / "token"
    until(lambda: token.exists() and token.stat().st_size > 0)
    forwarders = []
    for way in ways:
        forwarder = stack.enter_context(Forwarder(port, **way))  # type: ignore[arg-type]
        forwarders.append(forwarder)
        words = ["agent", "--connect", f"127.0.0.1:{forwarder.port}", "--token-file", str(token)]
        words += ["--folder", str(tmp_path / "store")]
        process = subprocess.Popen(
            [sys.executable, "-m", "replay.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "REPLAY_CLOCK_SKEW": skew},
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(process.kill)
    return forwarders


@pytest.mark.whole
@pytest.mark.timing
@pytest.mark.parametrize("skew", ["-3s", "-3s,500ppm", "3s,-500ppm"])
def test_the_start_is_as_exact_as_the_run_says_and_a_wide_bound_makes_it_say_so(
    tmp_path: Path, skew: str
) -> None:
    """Through a network with delays in one direction, jitter and stalls."""
    evening(tmp_path / "t.trace", seconds=3, per_second=100)
    port = free_port()
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        how = ("t.trace", "--target", url(sink), "--cluster", f"listen:127.0.0.1:{port},agents=2", "-t", "1")
        run = stack.enter_context(running(tmp_path, *how))
        agents_through(
            tmp_path, stack, port, [{"out_s": 0.06, "jitter_s": 0.01}, {"back_s": 0.05, "stall_s": 0.2}], skew
        )
        _, printed = run.wait()
    document = run.document()
    assert document["accounts"]["ok"] == 300, printed
    for agent in document["agents"]:
        share = json.loads((run.out / "agents" / f"agent-{agent['agent']}" / "share.json").read_text())
        # All agents are on this machine, so both instants are of the same clock.
        assert abs(share["start_ns"] - share["instant_ns"]) <= agent["clock"]["bound_ns"]
        assert agent["clock"]["bound_ns"] > 20 * MS
        assert abs(agent["clock"]["offset_ns"] - share["skew_ns"]) <= agent["clock"]["bound_ns"]
    assert "CLOCK_UNCERTAIN" in {reason["code"] for reason in document["validity"]["reasons"]}


@pytest.mark.whole
@pytest.mark.timing
@pytest.mark.parametrize("skew", ["", "2s,-200ppm"])
def test_agents_in_a_network_of_their_own_start_together_within_the_bound(
    tmp_path: Path, authority: Authority, skew: str
) -> None:
    """Over TLS, because the coordinator is not at a loopback address, and through delays, jitter and stalls."""
    evening(tmp_path / "t.trace", seconds=3, per_second=100)
    identity, port = authority.issue(FAR), free_port()
    ours = [f"--cluster-{name}={path}" for name, path in ways_of(authority, identity).items()]
    theirs = [f"--{name}={path}" for name, path in ways_of(authority, identity).items()]
    slow = {"out_s": 0.02, "jitter_s": 0.01, "stall_s": 0.1}
    with ExitStack() as stack:
        sink, network = stack.enter_context(Sink()), stack.enter_context(NetworkNamespace())
        ways = [
            Forwarder(port, listener=network.listen(FAR), **delays)  # type: ignore[arg-type]
            for delays in (slow, {"back_s": 0.03})
        ]
        target = stack.enter_context(Forwarder(sink.port, listener=network.listen(FAR)))
        how = ("--target", f"http://{FAR}:{target.port}", "--allow", FAR, "-t", "1", *ours)
        run = stack.enter_context(
            running(tmp_path, "t.trace", *how, "--cluster", f"listen:127.0.0.1:{port},agents=2")
        )
        until(lambda: takes_connections(port))
        for number, way in enumerate(ways):
            stack.enter_context(way)
            words = ("agent", "--connect", f"{FAR}:{way.port}", "--folder", tmp_path / f"a{number}")
            process = network.start(
                *words, "--allow", FAR, *theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                env={**os.environ, "REPLAY_CLOCK_SKEW": skew},
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
        _, printed = run.wait()
        assert sorted(sink.stamps()["seq"].tolist()) == list(range(300)), printed
    for agent in run.document()["agents"]:
        share = json.loads((run.out / "agents" / f"agent-{agent['agent']}" / "share.json").read_text())
        bound_ns = agent["clock"]["bound_ns"]
        # The network is another one, but the clock is that of this machine unless the test alters it.
        assert (bound_ns > 0) == bool(skew)
        assert abs(share["start_ns"] - share["instant_ns"]) <= bound_ns
        assert abs(agent["clock"]["offset_ns"] - share["skew_ns"]) <= bound_ns


def takes_connections(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def ways_of(authority: Authority, identity: Identity) -> dict[str, Path]:
    return {"ca": authority.path, "cert": identity.cert, "key": identity.key}


@pytest.mark.whole
@pytest.mark.timing
def test_a_partition_of_the_network_loses_the_agent_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=8, per_second=50)
    port = free_port()
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        how = ("t.trace", "--target", url(sink), "--cluster", f"listen:127.0.0.1:{port},agents=2", "-t", "1")
        run = stack.enter_context(running(tmp_path, *how, "--on-lost", "continue"))
        forwarders = agents_through(tmp_path, stack, port, [{}, {}])
        until(lambda: len(sink.stamps()["seq"]) > 60)
        forwarders[0].flowing.clear()
        stack.callback(forwarders[0].flowing.set)
        time.sleep(5)
        forwarders[0].flowing.set()
        _, printed = run.wait()
        seqs = sink.stamps()["seq"].tolist()
    document = run.document()
    accounts = document["accounts"]
    assert "LOST agent" in printed
    assert len(seqs) == len(set(seqs))
    assert accounts["planned"] == accounts["sent"] + accounts["unsent"] + accounts["unknown"] == 400
    assert accounts["sent"] <= len(seqs) <= accounts["sent"] + accounts["unknown"]


@pytest.mark.whole
@pytest.mark.timing
def test_a_clock_that_drifts_is_named(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=12, per_second=20)
    env = {"REPLAY_CLOCK_SKEW": "0s,500ppm"}
    with (
        Sink() as sink,
        running(
            tmp_path, "t.trace", "--target", url(sink), "--cluster", "local:1", "-t", "1", env=env
        ) as run,
    ):
        run.wait()
    (agent,) = run.document()["agents"]
    assert 300 < agent["clock"]["drift_ppm"] < 700
