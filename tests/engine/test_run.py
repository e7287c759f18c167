"""A run as a whole, from a program: inside Trio, cancelled, stopped by the circuit breaker, with a lane that hangs."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import trio

import replay
from replay.engine.priority import CONTROL_NICE, may_rise
from replay.engine.sinks import Sink as EachSecond
from replay.engine.watch import CircuitBreaker, Signals
from replay.errors import EngineError, LimitError, TargetError
from replay.plan.schedule import Schedule, make_schedule
from replay.report.console import Console
from replay.report.terminal import print_report
from replay.results.deltas import Deltas
from replay.results.document import Latency
from replay.results.run import load_run
from replay.results.timeline import Second
from replay.settings.file import load
from replay.settings.scenario import Scenario
from replay.staging.sink import Sink
from replay.trace import TraceWriter
from tests.support.places import ROOT
from tests.support.runs import run_blocking


@pytest.fixture
def sink():
    with Sink(capacity=10_000) as sink:
        yield sink


def schedule(
    folder: Path,
    port: int,
    *,
    path: str = "/",
    rows: int = 200,
    per_s: int = 100,
    clients: int = 1,
    **settings: object,
) -> tuple[Schedule, Scenario]:
    with TraceWriter(folder / "made.trace") as writer:
        request = writer.add_request("GET", path.encode())
        at_ns = np.arange(rows, dtype=np.int64) * (1_000_000_000 // per_s)
        client = (np.arange(rows) % clients).astype(np.uint32)
        writer.add_events(at_ns, np.full(rows, request, np.uint32), client)
    assert writer.trace is not None
    scenario = load(None, {"target": f"http://127.0.0.1:{port}", **settings}, {})
    return make_schedule(writer.trace, scenario), scenario


async def test_a_run_inside_a_trio_program(sink: Sink, tmp_path: Path) -> None:
    seconds: list[Second] = []

    class Kept(EachSecond):
        def second(self, second: Second, deltas: Deltas) -> None:
            seconds.append(second)

    planned, scenario = schedule(tmp_path, sink.port)
    document = await replay.engine.run(planned, scenario, tmp_path / "run", sinks=[Kept()])
    assert document.accounts.ok == 200
    assert sum(second.planned for second in seconds) == 200
    assert load_run(tmp_path / "run").document.accounts == document.accounts


async def test_a_cancelled_run_is_saved(sink: Sink, tmp_path: Path) -> None:
    planned, scenario = schedule(tmp_path, sink.port, rows=1_000)

    async def cancel_midway(scope: trio.CancelScope) -> None:
        while sink.arrivals < 50:
            await trio.sleep(0.01)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_midway, nursery.cancel_scope)
        await replay.engine.run(planned, scenario, tmp_path / "run")
    document = load_run(tmp_path / "run").document
    assert document.interrupted
    accounts = document.accounts
    assert 0 < accounts.planned < 1_000
    assert accounts.planned == accounts.sent + accounts.unsent


async def test_the_circuit_breaker_ends_a_run_that_only_does_harm(sink: Sink, tmp_path: Path) -> None:
    planned, scenario = schedule(
        tmp_path, sink.port, path="/sink/status=503", rows=3_000, breaker={"over": "1s"}
    )
    document = await replay.engine.run(planned, scenario, tmp_path / "run")
    assert document.ending.how == "circuit_breaker"
    assert "100%" in document.ending.detail
    assert document.accounts.planned < 3_000


@pytest.mark.parametrize(
    ("counts", "opens"),
    [
        ({"ok": 100, "unsent": 90, "unsent_of_target": 90}, False),
        ({"ok": 100, "unsent": 110, "unsent_of_target": 110}, True),
        ({"ok": 1, "timeout": 1, "unsent": 30, "unsent_of_target": 30}, True),
        ({"ok": 100, "unsent": 900}, False),
        ({"ok": 10, "unsent": 9, "unsent_of_target": 9}, False),
        ({"ok": 10, "error": 6, "unsent": 6, "unsent_of_target": 6}, True),
    ],
)
def test_the_breaker_counts_what_the_target_kept_from_being_sent(counts: dict[str, int], opens: bool) -> None:
    required = dict.fromkeys((field.name for field in msgspec.structs.fields(Second) if field.required), 0)
    second = msgspec.convert(required | {"length_s": 1.0} | counts, Second)
    reasons: list[str] = []
    CircuitBreaker(load(None, {"breaker": {"over": "1s"}}, {}).breaker, reasons.append).second(
        second, Deltas()
    )
    assert bool(reasons) is opens


@pytest.mark.timing
@pytest.mark.parametrize("engine", ["native", "portable"])
async def test_what_the_target_keeps_from_being_sent_has_failed(
    sink: Sink, tmp_path: Path, engine: str
) -> None:
    """It takes two requests and never answers: no request has ended when the breaker opens."""
    planned, scenario = schedule(
        tmp_path, sink.port, path="/sink/never", rows=1_000, engine=engine, connections=2, max_wait="300ms",
        timeout="30s", breaker={"over": "1s"},
    )  # fmt: skip
    document = await replay.engine.run(planned, scenario, tmp_path / "run")
    assert document.ending.how == "circuit_breaker"
    assert "unsent because the target kept every connection busy" in document.ending.detail
    assert document.accounts.planned < 1_000


async def test_a_breaker_that_is_off_lets_it_go_on(sink: Sink, tmp_path: Path) -> None:
    planned, scenario = schedule(
        tmp_path, sink.port, path="/sink/status=503", breaker={"over": "1s", "on": False}
    )
    document = await replay.engine.run(planned, scenario, tmp_path / "run")
    assert document.ending.how == "whole"
    assert document.accounts.ok == 200, "an answer of any status is one"


async def test_nothing_is_left_behind_where_nothing_was_sent(tmp_path: Path) -> None:
    planned, scenario = schedule(tmp_path, 1)
    with pytest.raises(TargetError):
        await replay.engine.run(planned, scenario, tmp_path / "run")
    assert not (tmp_path / "run").exists()


async def test_a_limit_holds_for_programs_too(sink: Sink, tmp_path: Path) -> None:
    planned, scenario = schedule(tmp_path, sink.port, max_rate="10/s")
    with pytest.raises(LimitError):
        await replay.engine.run(planned, scenario, tmp_path / "run")


async def test_two_lanes_share_the_load_and_the_result(sink: Sink, tmp_path: Path) -> None:
    planned, scenario = schedule(tmp_path, sink.port, threads=2, rows=301)
    document = await replay.engine.run(planned, scenario, tmp_path / "run")
    assert document.generator.lanes == 2
    assert document.accounts.ok == 301
    assert np.array_equal(np.sort(sink.stamps()["seq"]), np.arange(301))


@pytest.mark.timing
@pytest.mark.parametrize("engine", ["native", "portable"])
async def test_clients_in_order_live_on_one_lane_each(sink: Sink, tmp_path: Path, engine: str) -> None:
    planned, scenario = schedule(
        tmp_path, sink.port, path="/sink/delay_ms=40", rows=300, per_s=250, clients=5, threads=2, engine=engine,
        order="client",
    )  # fmt: skip
    document = await replay.engine.run(planned, scenario, tmp_path / "run")
    assert document.accounts.ok == 300
    arrived = sink.stamps()
    for client in range(5):
        own = arrived[arrived["seq"] % 5 == client]
        assert own["seq"].tolist() == list(range(client, 300, 5))
        assert np.diff(own["arrival_ns"]).min() >= 40_000_000
    order, wait = document.latency.wait_order, document.latency.wait
    assert isinstance(order, Latency) and isinstance(wait, Latency)
    assert 250 <= order.count <= wait.count == 300
    assert order.max_ns > 500_000_000


@pytest.mark.timing
@pytest.mark.parametrize("engine", ["native", "portable"])
async def test_clients_keep_connections_of_their_own(sink: Sink, tmp_path: Path, engine: str) -> None:
    planned, scenario = schedule(
        tmp_path, sink.port, rows=300, per_s=300, clients=60, threads=2, engine=engine, connect="per-client",
        order="client",
    )  # fmt: skip
    document = await replay.engine.run(planned, scenario, tmp_path / "run")
    assert document.accounts.ok == 300
    assert document.connections.opened == 60
    arrived = sink.stamps()
    used = {client: set(arrived["connection"][arrived["seq"] % 60 == client]) for client in range(60)}
    assert all(len(own) == 1 for own in used.values())
    assert len(set.union(*used.values())) == 60


@pytest.mark.timing
async def test_a_storm_of_retries_is_in_the_run_and_its_report(sink: Sink, tmp_path: Path) -> None:
    planned, scenario = schedule(
        tmp_path, sink.port, path="/sink/fails=30", rows=1_000, per_s=1_000,
        retry={"attempts": 3, "on": ["5xx"], "backoff": "2ms"},
    )  # fmt: skip
    document = await replay.engine.run(planned, scenario, tmp_path / "run")
    assert document.retries is not None
    assert document.accounts.sent == 1_000
    assert document.retries.at_target == sink.arrivals == 1_000 + document.retries.retries
    assert document.retries.amplification == pytest.approx(1.39, abs=0.1)
    assert document.accounts_detail.status_class["5xx"] == pytest.approx(27, abs=26)
    text = io.StringIO()
    print_report(load_run(tmp_path / "run"), Console(file=text, width=120))
    assert (
        f"amplification {document.retries.amplification:.2f}: {sink.arrivals:,} requests" in text.getvalue()
    )


async def test_a_lane_that_cannot_start_says_so(
    sink: Sink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(spec: object) -> None:
        raise EngineError("a lane could not start: no descriptors")

    monkeypatch.setattr(
        sys.modules["replay.protocols.http1.adapter"],
        "choose_engine",
        lambda name, **_more: ("native", broken),
    )
    planned, scenario = schedule(tmp_path, sink.port)
    with pytest.raises(EngineError, match="no descriptors"):
        await replay.engine.run(planned, scenario, tmp_path / "run")
    assert load_run(tmp_path / "run").document.ending.how == "failed"


HANGING = """
    import sys, time, trio
    import replay.engine, replay.protocols.http1.adapter

    async def hang(spec):
        print("hanging", flush=True)
        await trio.to_thread.run_sync(time.sleep, 60)

    sys.modules["replay.protocols.http1.adapter"].choose_engine = lambda name, **_more: ("native", hang)
    sys.path.insert(0, sys.argv[1])
    from pathlib import Path
    from tests.engine.test_run import run_blocking, schedule
    run_blocking(*schedule(Path(sys.argv[2]), int(sys.argv[3])), sys.argv[2] + "/run")
"""


async def test_a_run_that_a_shell_put_into_the_background_ends_by_the_signals_that_it_is_sent() -> None:
    ignored = (signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        signals = Signals()
        async with trio.open_nursery() as nursery:
            await nursery.start(signals.watch)
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGINT)
            with trio.fail_after(5):
                await signals.first.wait()
            nursery.cancel_scope.cancel()
        assert signals.name == "SIGINT" and not signals.second.is_set()
    finally:
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.timing
@pytest.mark.whole
def test_a_lane_that_hangs_cannot_keep_the_process(sink: Sink, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HANGING), str(ROOT), str(tmp_path), str(sink.port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "hanging"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "did not end when it was asked to" in errors and "Traceback" not in errors
    assert load_run(tmp_path / "run").document.ending.how == "failed"


def test_a_run_that_is_not_the_last_of_its_process_leaves_its_priority_as_it_was(
    sink: Sink, tmp_path: Path
) -> None:
    own = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, own)
    seen: list[int] = []

    class Observer(EachSecond):
        def second(self, second: Second, deltas: Deltas) -> None:
            if second.sent:  # The signal arrives during the run.
                seen.append(os.getpriority(os.PRIO_PROCESS, own))

    run_blocking(*schedule(tmp_path, sink.port, rows=250), tmp_path / "run", [Observer()])
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
    assert seen[0] == (max(before, CONTROL_NICE) if may_rise() else before)
