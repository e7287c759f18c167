"""What the portable engine alone can do: speak another protocol."""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from replay.lane.contract import LaneSpec
from replay.portable.engine import run_lane
from replay.portable.protocol import Connectionless, Outcome, Request, Transport
from replay.protocols.http1.portable.lane import run_lane as run_http_lane
from replay.staging.sink import Sink
from replay_native.ground import jit
from replay_native.ledger.lane_metrics import RESET
from tests.contract.driver import Ask, drive


@pytest.fixture(scope="module", autouse=True)
def _kernels() -> None:
    jit.warm(["ground.shared", "ledger.hdr", "ledger.record"])


@pytest.mark.timing
async def test_a_protocol_can_be_one_function(tmp_path: Path) -> None:
    seen: list[Request] = []

    async def send(request: Request) -> Outcome:
        seen.append(request)
        match request.seq % 5:
            case 0:
                raise ConnectionResetError("gone")
            case 1:
                return Outcome(failure=RESET)
            case 2:
                await trio.sleep_forever()
            case 3:
                request.first_byte_ns = time.monotonic_ns()
                request.bytes_received = 7
                return Outcome(status=404, reusable=True)
        return Outcome(status=200, reusable=True)

    engine = functools.partial(run_lane, transport=Connectionless(send))
    asks = [Ask("/x", at_ms=i, route=1) for i in range(10)]
    driven = await drive(engine, tmp_path, asks, timeout_s=0.1, connections=3)
    assert driven.outcomes == {"reset": 4, "timeout": 2, "2xx": 2, "4xx": 2}
    assert sorted(one.seq for one in seen if one.route == 1) == list(range(10))
    assert seen[0].data == asks[0].render(seen[0].seq)
    assert driven["bytes_received"] == 14
    assert driven.count("first_byte.all") == 2


@pytest.mark.timing
async def test_a_protocol_that_cannot_connect_fails_requests(tmp_path: Path) -> None:
    class Unreachable(Transport):
        async def connect(self, client: int) -> Connectionless:
            raise TimeoutError(110, "no route")

    driven = await drive(
        functools.partial(run_lane, transport=Unreachable()), tmp_path, [Ask(at_ms=i) for i in range(4)]
    )
    assert driven.outcomes == {"timeout": 4}


async def test_a_broken_protocol_is_told_of(tmp_path: Path) -> None:
    async def send(_request: Request) -> Outcome:
        raise ZeroDivisionError

    with trio.fail_after(5), pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        await drive(functools.partial(run_lane, transport=Connectionless(send)), tmp_path, [Ask()])


async def test_no_garbage_collection_looks_at_what_was_there_before(tmp_path: Path) -> None:
    kept: list[int] = []

    async def send(_request: Request) -> Outcome:
        kept.append(gc.get_freeze_count())
        return Outcome(status=200, reusable=True)

    await drive(functools.partial(run_lane, transport=Connectionless(send)), tmp_path, [Ask()])
    assert min(kept) > 10_000
    assert gc.get_freeze_count() == 0


async def test_cancelling_it_abandons_the_run(sink: Sink, tmp_path: Path) -> None:
    async def cancelled(spec: LaneSpec) -> None:
        with trio.move_on_after(0.2):
            await run_http_lane(spec)

    asks = [Ask("/sink/never")] * 2 + [Ask(at_ms=10_000)]
    driven = await drive(cancelled, tmp_path, asks, sink.port, killed=True)
    assert (driven["planned"], driven.accounts.in_flight) == (2, 2)
    assert driven.took_s < 5


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(capacity=1_000) as sink:
        yield sink
