"""A test that asks for `run_lane` runs against the native lane and the portable one; marked `by_tls`, over TLS too.

The driver checks after every run that the accounts balance and that histograms and counts tell of the same requests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from replay.lane import KERNEL_MODULES
from replay.staging.sink import Identity, Sink
from replay_native.ground import jit
from tests.support.certificates import Authority

from .driver import ENGINES, RunLane


@pytest.fixture(scope="session", autouse=True)
def _lanes() -> None:
    jit.warm(KERNEL_MODULES)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> RunLane:
    return ENGINES[request.param]


@pytest.fixture(params=["plain"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def run_lane(engine: RunLane, transport: str, authority: Authority) -> RunLane:
    if transport == "plain":
        return engine
    return lambda spec: engine(dataclasses.replace(spec, tls=authority.settings()))


@pytest.fixture
def identity(transport: str, authority: Authority) -> Identity | None:
    return authority.issue() if transport == "tls" else None


@pytest.fixture
def sink(identity: Identity | None) -> Iterator[Sink]:
    with Sink(capacity=20_000, tls=identity) as sink:
        yield sink
