"""The queue of a service of known capacity: its kernel against its twin, and what the sink makes of it."""

from __future__ import annotations

import itertools
import socket
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.errors import UsageError
from replay.staging.sink import Servers, Sink
from replay_native.ground import jit
from replay_native.staging import queueing
from tests.reference.workload import served
from tests.support.peak_data import waits

jit.warm(["staging.queueing"])
MS = 1_000_000

pytestmark = pytest.mark.boundscheck


def done(arrivals_ns: list[int], servers: int, service_ns: int) -> np.ndarray:
    queue, done_ns = np.zeros(1, queueing.QUEUE), np.zeros(len(arrivals_ns), np.int64)
    queue["service_ns"] = service_ns
    queueing.take_all_on(queue, np.zeros(servers, np.int64), np.array(arrivals_ns, np.int64), done_ns)
    return done_ns


gaps = st.lists(st.one_of(st.just(0), st.integers(0, 30), st.integers(0, 10**12)), max_size=60)


@given(gaps, st.integers(1, 9), st.integers(1, 100))
def test_a_request_goes_to_the_server_that_is_free_first(
    gaps_ns: list[int], servers: int, service_ns: int
) -> None:
    arrivals_ns = list(itertools.accumulate(gaps_ns))
    assert done(arrivals_ns, servers, service_ns).tolist() == served(arrivals_ns, servers, service_ns)


def test_it_is_the_queue_whose_answer_is_known() -> None:
    random = np.random.default_rng(1)
    arrivals_ns = np.cumsum(random.exponential(140_000, 20_000).astype(np.int64))
    waited_ns = done(arrivals_ns.tolist(), 8, MS) - MS - arrivals_ns
    assert np.allclose(waited_ns / 1e9, waits(arrivals_ns / 1e9, 8, 0.001), atol=1e-9)


def test_one_that_is_told_of_late_comes_with_the_one_before_it() -> None:
    assert done([1_000, 400, 1_100], 3, 50).tolist() == [1_050, 1_050, 1_150]


def asked(servers: Servers, count: int, path: str = "/") -> list[tuple[int, float]]:
    """Status, and ms until it came, of so many requests at once, each on a connection of its own, in order."""
    with Sink(servers=servers) as sink:
        clients = [socket.create_connection(("127.0.0.1", sink.port), 5) for _ in range(count)]
        began = time.monotonic()
        answers = []
        for client in clients:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: sink\r\n\r\n".encode())
        for client in clients:
            answers.append((int(client.recv(4_096).split()[1]), 1e3 * (time.monotonic() - began)))
            client.close()
    return answers


def test_requests_wait_for_a_server() -> None:
    answers = asked(Servers(2, 20 * MS), 5)
    assert [status for status, _ in answers] == [200] * 5
    assert all(took_ms >= least for (_, took_ms), least in zip(answers, (20, 20, 40, 40, 60), strict=True))


def test_what_says_how_it_is_answered_needs_no_server() -> None:
    assert [status for status, _ in asked(Servers(1, 3_000 * MS), 3, "/sink/status=404")] == [404] * 3


@pytest.mark.timing
def test_pipelined_requests_wait_one_after_another() -> None:
    with (
        Sink(servers=Servers(1, 20 * MS)) as sink,
        socket.create_connection(("127.0.0.1", sink.port), 5) as client,
    ):
        began, answer = time.monotonic(), b""
        client.sendall(b"GET / HTTP/1.1\r\nHost: sink\r\n\r\n" * 3)
        while answer.count(b"HTTP/1.1 200") < 3:
            answer += client.recv(4_096)
        assert time.monotonic() - began >= 0.06


def test_servers_work_on_what_was_given_up() -> None:
    # The second request waits 100 ms for a server that is free after 60 ms. It is sent again, and queues behind itself.
    first, second = asked(Servers(1, 60 * MS, retries=1, patience_ns=100 * MS), 2)
    assert first[0] == second[0] == 200
    assert first[1] >= 60 and second[1] >= 180


def test_a_request_whose_last_try_is_not_done_in_time_has_failed() -> None:
    (answer,) = asked(Servers(1, 300 * MS, retries=2, patience_ns=20 * MS), 1)
    assert answer[0] == 503 and answer[1] >= 60


@pytest.mark.timing
def test_a_client_that_leaves_takes_nothing_back() -> None:
    with Sink(servers=Servers(1, 40 * MS)) as sink:
        with socket.create_connection(("127.0.0.1", sink.port), 5) as gone:
            gone.sendall(b"GET / HTTP/1.1\r\nHost: sink\r\n\r\n")
            while sink.arrivals < 1:
                time.sleep(0.001)
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", sink.port), 5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: sink\r\n\r\n")
            assert client.recv(4_096).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("wrong", [(0, 1), (1, 0), (1, 1, -1), (1, 1, 1, 0)])
def test_a_queue_that_makes_no_sense_is_refused(wrong: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="is not possible"):
        Servers(*wrong)
