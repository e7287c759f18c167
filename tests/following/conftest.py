"""Runs that a failed test left behind are ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.followed import Followed


@pytest.fixture(autouse=True)
def _no_follower_left() -> Iterator[None]:
    yield
    Followed.kill_all()
