"""`replay follow` by the real command, onto the sink."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replay.staging.sink import Sink
from replay.trace import Trace
from tests.support.followed import MS_FORMAT, Ended, Followed, line

pytestmark = [pytest.mark.whole, pytest.mark.timing]

MS = ("--log-format", MS_FORMAT)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as found:
        yield found


def _written(
    path: Path, count: int, *, every_s: float = 0.01, made: Callable[[int], str] | None = None
) -> None:
    """Write lines one by one, as a server does."""
    for number in range(count):
        with path.open("a") as file:
            file.write(made(number) if made is not None else line(f"/items/{number}"))
        time.sleep(every_s)


def _followed(
    tmp_path: Path,
    sink: Sink,
    write: Callable[[Path], None],
    *flags: str,
    before: str = "",
    wait_s: float = 3.0,
) -> Ended:
    """Follow a log that `write` writes to, and end by SIGTERM."""
    path = tmp_path / "a.log"
    path.write_text(before or line("/before", at_s=time.time() - 60))
    follow = Followed(tmp_path, "a.log", sink.port, *MS, *flags)
    follow.wait_for_plan()
    write(path)
    time.sleep(wait_s)
    return follow.end()


def test_each_request_is_sent_once_after_the_delay(tmp_path: Path, sink: Sink) -> None:
    ended = _followed(tmp_path, sink, lambda path: _written(path, 100), "--delay", "1s")
    assert ended.planned == ended.run["accounts"]["ok"] == sink.arrivals == 100
    assert ended.source["entries"] == 100 and ended.balanced()
    assert ended.source["late_at_source"] == 0 and ended.source["delay_ns"] == 10**9
    assert ended.run["ending"] == {**ended.run["ending"], "how": "whole", "detail": "followed until SIGTERM"}
    assert ended.code in (0, 4), ended.err
    assert {route["route"] for route in ended.run["routes"]} == {"GET /items/{id}"}
    assert ended.run["routes"][0]["recorded"]["statuses"] == {"2xx": 100}
    assert "needed a delay of" in ended.out


def test_due_is_the_recorded_start_plus_the_delay(tmp_path: Path, sink: Sink) -> None:
    """nginx logs a request at its end: two requests that began in the other order are sent in that of their starts."""

    def write(path: Path) -> None:
        now = time.time()
        lines = [line("/quick", at_s=now), line("/slow", at_s=now, took_s=0.9)]
        path.open("a").write("".join(lines))

    ended = _followed(tmp_path, sink, write, "--delay", "2s", "--keep", "kept.trace")
    assert ended.planned == 2
    trace = Trace.open(tmp_path / "kept.trace")
    (batch,) = trace.batches()
    targets = [trace.requests.get(int(number)).target for number in batch.request]
    assert targets == [b"/slow", b"/quick"]
    assert abs(int(batch.at_ns[1] - batch.at_ns[0]) - 900_000_000) < 2_000_000
    assert ended.source["kept"] == "kept.trace" and ended.run["trace"]["digest"] == trace.digest


def test_an_entry_that_comes_after_it_was_due_is_late_at_the_source(tmp_path: Path, sink: Sink) -> None:
    def write(path: Path) -> None:
        now = time.time()
        path.open("a").write(line("/late", at_s=now - 5) * 3 + line("/in-time", at_s=now))

    ended = _followed(tmp_path, sink, write, "--delay", "1500ms")
    assert ended.source["late_at_source"] == 3 and ended.planned == 1 and ended.balanced()
    assert ended.run["validity"]["verdict"] != "INVALID" or "LATE" not in str(
        ended.run["validity"]["reasons"]
    )
    assert 4.9e9 < ended.source["needed_delay_ns"] < 7e9
    assert "LATE_AT_SOURCE" in ended.out


def test_rotation_in_the_middle_loses_none(tmp_path: Path, sink: Sink) -> None:
    def write(path: Path) -> None:
        with path.open("a") as server:
            for number in range(60):
                if number == 20:
                    path.rename(tmp_path / "a.log.1")
                server.write(line(f"/old/{number}"))
                server.flush()
                if number >= 40:
                    with path.open("a") as other:
                        other.write(line(f"/new/{number}"))
                time.sleep(0.01)

    ended = _followed(tmp_path, sink, write)
    assert ended.source["entries"] == ended.planned == sink.arrivals == 80
    assert ended.source["rotations"] == 1


def test_a_truncated_log_is_named(tmp_path: Path, sink: Sink) -> None:
    def write(path: Path) -> None:
        _written(path, 20)
        time.sleep(0.2)
        os.truncate(path, 0)
        _written(path, 20)

    ended = _followed(tmp_path, sink, write)
    assert ended.planned == 40 and ended.source["truncations"] == 1
    assert "SOURCE_TRUNCATED" in ended.out


def test_standard_input_is_followed_to_its_end(tmp_path: Path, sink: Sink) -> None:
    follow = Followed(tmp_path, "-", sink.port, *MS, "--delay", "1s")
    assert follow.process.stdin is not None
    follow.process.stdin.write(line("/first", at_s=time.time() - 60).encode())
    follow.process.stdin.flush()
    follow.wait_for_plan()
    for number in range(30):
        follow.process.stdin.write(line(f"/{number}").encode())
        follow.process.stdin.flush()
    ended = follow.end(None)
    assert ended.planned == sink.arrivals == 30
    assert (
        ended.source["entries"] == 31 and ended.source["before_start"] == ended.source["late_at_source"] == 1
    )
    assert ended.run["ending"]["detail"] == "followed until the end of standard input"


def test_a_log_that_appears_later_and_whole_seconds(tmp_path: Path, sink: Sink) -> None:
    """Stamps of whole seconds are spread inside their second, in the order of the log."""
    path = tmp_path / "later.log"
    follow = Followed(tmp_path, "later.log", sink.port, "-d", "8s", "--keep", "kept.trace")
    follow.wait_for_error("later.log does not exist: waiting for its first lines")

    def combined(number: int) -> str:
        stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
        return f'10.0.0.1 - - [{stamp}] "GET /p/{number} HTTP/1.1" 200 1 "-" "agent"\n'

    _written(path, 1, made=combined)
    follow.wait_for_plan()
    _written(path, 100, every_s=0.02, made=combined)
    ended = follow.end(None)
    assert ended.source["delay_ns"] == 3 * 10**9 and "stamps of 1 s" in ended.source["delay_reason"]
    assert ended.planned >= 100 and ended.balanced()
    trace = Trace.open(tmp_path / "kept.trace")
    (batch,) = trace.batches()
    targets = [trace.requests.get(int(number)).target for number in batch.request]
    assert targets == [b"/p/0", *(b"/p/%d" % number for number in range(100))]
    assert len(set(batch.at_ns.tolist())) > 95


def test_a_run_ends_after_its_duration_and_the_rest_is_not_due(tmp_path: Path, sink: Sink) -> None:
    path = tmp_path / "a.log"
    path.write_text(line("/before", at_s=time.time() - 60))
    follow = Followed(tmp_path, "a.log", sink.port, *MS, "--delay", "1s", "-d", "3s")
    follow.wait_for_plan()
    _written(path, 250, every_s=0.02)
    ended = follow.end(None)
    assert 0 < ended.planned < 200 and ended.source["not_due"] > 0 and ended.balanced()
    assert ended.planned == sink.arrivals


def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    """The first one lets requests in flight end."""
    with Sink() as sink:
        path = tmp_path / "a.log"
        path.write_text(line("/before", at_s=time.time() - 60))
        follow = Followed(tmp_path, "a.log", sink.port, *MS, "--delay", "500ms")
        follow.wait_for_plan()
        time.sleep(1)
        path.open("a").write(line("/sink/never"))
        time.sleep(2.5)
        follow.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert follow.process.poll() is None
        ended = follow.end(signal.SIGINT)
    assert ended.code == 130 and ended.run["accounts"]["in_flight"] == 1


def test_samples_routes_and_methods(tmp_path: Path, sink: Sink) -> None:
    def write(path: Path) -> None:
        lines = [line(f"/{'ab'[number % 2]}/{number}", client=f"10.0.{number}.1") for number in range(200)]
        path.open("a").write("".join([*lines, line("/a/1").replace("GET", "POST")]))

    ended = _followed(tmp_path, sink, write, "--only", "GET /a/*", "--sample", "50%")
    skipped = ended.source["skipped"]
    assert skipped["method POST"] == 1 and skipped["not in --only"] == 100
    assert 20 < ended.planned < 80 and ended.planned + skipped["not in the sample"] == 100
    assert ended.balanced() and sink.arrivals == ended.planned


@pytest.mark.parametrize("grow", ["requests", "sessions"])
def test_scale_makes_copies(tmp_path: Path, sink: Sink, grow: str) -> None:
    def write(path: Path) -> None:
        _written(path, 40, made=lambda number: line(f"/{number}", client=f"10.0.0.{number % 4}"))

    ended = _followed(tmp_path, sink, write, "--scale", "3", "--grow", grow, "--order", "client")
    assert ended.planned == sink.arrivals == 120
    assert ended.source["copies"] == 80 and ended.balanced()


def test_own_requests_in_the_followed_log_are_noticed(tmp_path: Path, sink: Sink) -> None:
    """What is sent is logged where it was read: a stand-in for a server that is its own target."""

    def write(path: Path) -> None:
        seen = 0
        _written(path, 20)
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s:
            arrived = sink.arrivals
            for number in range(seen, arrived):
                with path.open("a") as file:
                    file.write(line(f"/items/{number % 20}"))
            seen = arrived
            time.sleep(0.005)

    ended = _followed(tmp_path, sink, write, "--delay", "2s")
    assert ended.source["own_requests"] > 0
    assert "OWN_REQUESTS" in ended.out and "holds requests of this run" in ended.err


def test_traffic_that_repeats_itself_is_no_loop(tmp_path: Path, sink: Sink) -> None:
    def write(path: Path) -> None:
        for _ in range(80):
            path.open("a").write("".join(line(f"/poll/{number}") for number in range(5)))
            time.sleep(0.1)

    ended = _followed(tmp_path, sink, write, "--delay", "1s")
    assert ended.source["own_requests"] == 0 and ended.planned == 400


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--delay", "0s"), "cannot be sent before it was recorded"),
        (("--grow", "sessions", "--scale", "0.5"), "takes one factor of at least 1"),
        (("--delay", "soon"), "soon"),
        (("--format", "har"), "a HAR file is complete only at its end"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, sink: Sink, flags: tuple[str, ...], said: str
) -> None:
    (tmp_path / "a.log").write_text(line("/before"))
    ended = Followed(tmp_path, "a.log", sink.port, *flags).end(None)
    assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


def test_a_log_of_long_ago_is_no_source(tmp_path: Path, sink: Sink) -> None:
    path = tmp_path / "old.log"
    path.write_text("".join(line(f"/{number}", at_s=1_700_000_000 + number) for number in range(50)))
    ended = Followed(tmp_path, "old.log", sink.port, *MS, "--from", "beginning", "-d", "2s").end(None)
    assert ended.code == 4 and ended.planned == 0
    assert ended.source["late_at_source"] == ended.source["entries"] == 50
    assert "replay run" in ended.out
