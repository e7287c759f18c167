"""A run is prepared in one way, and runs in any thread, beside any event loop, more than once, at an instant."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

import replay
from replay.engine import Prepared, prepare
from replay.errors import LimitError, TargetError, UsageError
from replay.results.run import Run
from replay.settings.file import load
from replay.staging.dns_server import DnsServer
from replay.staging.sink import Sink
from replay.trace import Trace
from tests.support.trace_data import Row, write_trace

MS = 1_000_000
ROWS = 20


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(capacity=1_000) as sink:
        yield sink


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return write_trace(tmp_path / "t.trace", [Row(n * 5 * MS) for n in range(ROWS)])


def in_main_thread(run: Callable[[], Run]) -> Run:
    return run()


def in_a_thread(run: Callable[[], Run]) -> Run:
    found: list[Run] = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    thread.join()
    return found[0]


def in_a_coroutine(run: Callable[[], Run]) -> Run:
    async def main() -> Run:
        return run()

    return asyncio.run(main())


def in_a_thread_of_asyncio(run: Callable[[], Run]) -> Run:
    async def main() -> Run:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        beside = asyncio.create_task(tick())
        found = await asyncio.to_thread(run)
        beside.cancel()
        assert ticks > 3
        return found

    return asyncio.run(main())


def beside_signals_of_asyncio(run: Callable[[], Run]) -> Run:
    """Asyncio is woken by signals through a descriptor of its own, which stays where it is."""

    async def main() -> Run:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
        before = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(before)
        found = run()
        after = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(after)
        assert before == after != -1
        return found

    return asyncio.run(main())


def under_trio(run: Callable[[], Run]) -> Run:
    async def main() -> Run:
        return run()

    return trio.run(main)


PLACES = [
    in_main_thread, in_a_thread, in_a_coroutine, in_a_thread_of_asyncio, beside_signals_of_asyncio, under_trio,
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_the_library_runs_anywhere(
    trace: Trace, sink: Sink, tmp_path: Path, place: Callable[[Callable[[], Run]], Run]
) -> None:
    url = f"http://127.0.0.1:{sink.port}"
    run = place(lambda: replay.run(trace, target=url, out=tmp_path / "run"))
    assert run.document.accounts.ok == ROWS and run.document.ending.how == "whole"


def test_two_runs_at_once_and_two_after_each_other(trace: Trace, sink: Sink, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{sink.port}"
    found: dict[int, Run] = {}

    def run(number: int) -> None:
        found[number] = replay.run(trace, target=url, out=tmp_path / str(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run(2)
    assert {number: one.document.accounts.ok for number, one in found.items()} == {0: ROWS, 1: ROWS, 2: ROWS}
    assert len({one.document.run_id for one in found.values()}) == 3
    assert sink.arrivals == 3 * ROWS


def test_an_interrupt_of_a_run_in_a_coroutine_ends_it(trace: Trace, sink: Sink, tmp_path: Path) -> None:
    script = f"""
import asyncio, pathlib, signal, threading, time, sys
import replay

def interrupt():
    while not list(pathlib.Path(sys.argv[2]).glob("started*")):
        time.sleep(0.05)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

async def main():
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        replay.run(sys.argv[1], target="http://127.0.0.1:{sink.port}", speed=0.001, out=sys.argv[2])
    except KeyboardInterrupt:
        print("interrupted", len([t for t in threading.enumerate() if t.name == "replay"]))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(trace.path), str(tmp_path / "run")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "interrupted 0" in done.stdout, done
    assert replay.load(tmp_path / "run").document.ending.how == "interrupted"


def prepared(trace: Trace, sink: Sink, **given: object) -> Prepared:
    return prepare(trace, load(None, {"target": f"http://127.0.0.1:{sink.port}", **given}))


def test_the_dry_run_sends_nothing_and_the_run_may_follow_twice(
    trace: Trace, sink: Sink, tmp_path: Path
) -> None:
    with prepared(trace, sink) as made:
        (plan,) = made.plans
        assert plan.rows == ROWS and sink.arrivals == 0
        first = made.run(tmp_path / "one")
        second = made.run(tmp_path / "two")
    assert (first.accounts.ok, second.accounts.ok) == (ROWS, ROWS)


def test_a_run_starts_at_its_instant(trace: Trace, sink: Sink, tmp_path: Path) -> None:
    instant_ns = time.time_ns() + 1_500 * MS
    with prepared(trace, sink) as made:
        document = made.run(tmp_path / "run", start_at_ns=instant_ns)
    assert abs(document.start.wall_ns - instant_ns) < 5 * MS
    assert document.accounts.ok == ROWS


@pytest.mark.parametrize(("later_ns", "words"), [(-3_000 * MS, "was .* ago"), (100 * MS, "is in .* ms")])
def test_an_instant_that_cannot_be_kept_is_refused(
    trace: Trace, sink: Sink, tmp_path: Path, later_ns: int, words: str
) -> None:
    with prepared(trace, sink) as made, pytest.raises(UsageError, match=words):
        made.run(tmp_path / "run", start_at_ns=time.time_ns() + later_ns)
    assert sink.arrivals == 0 and not (tmp_path / "run").exists()


async def test_under_trio_it_is_awaited(trace: Trace, sink: Sink, tmp_path: Path) -> None:
    with prepared(trace, sink) as made:
        document = await made.run_async(tmp_path / "run")
    assert document.accounts.ok == ROWS


def test_a_name_is_looked_up_once_before_a_run(trace: Trace, sink: Sink, tmp_path: Path) -> None:
    with DnsServer() as server:
        server.set("staging.example", "127.0.0.1")
        given = {"allow": ["staging.example"], "resolver": server.address, "resolve": "once"}
        scenario = load(None, {"target": f"http://staging.example:{sink.port}", **given})
        with prepare(trace, scenario) as made:
            document = made.run(tmp_path / "run")
        assert [server.count("staging.example", kind) for kind in ("A", "AAAA")] == [1, 1]
    assert document.names[0].lookups == 1 and document.accounts.ok == ROWS


def test_what_it_made_on_disk_is_removed(trace: Trace, sink: Sink, tmp_path: Path) -> None:
    with prepared(trace, sink, scale=["2"]) as made:
        area = made._area
        assert area is not None and list(area.iterdir())
    assert not area.exists()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"speeed": 2}, UsageError, "speeed: there is no such setting .did you mean speed"),
        ({"target": "http://192.0.2.1"}, LimitError, "192.0.2.1"),
        ({"target": "http://no-such.invalid", "allow": ["*"]}, (TargetError, UsageError), "."),
        ({"max_rate": "1/s"}, LimitError, "busiest second"),
        ({"methods": "POST"}, UsageError, "nothing would be sent"),
    ],
)
def test_the_library_says_what_is_wrong_before_anything_is_sent(
    trace: Trace, sink: Sink, tmp_path: Path, given: dict[str, object], error: type[Exception], words: str
) -> None:
    settings: dict[str, object] = {"target": f"http://127.0.0.1:{sink.port}", **given}
    with pytest.raises(error, match=words):
        replay.run(trace, out=tmp_path / "run", **settings)  # type: ignore[arg-type]
    assert sink.arrivals == 0 and not (tmp_path / "run").exists()
