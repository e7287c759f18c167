"""What every test needs: the small kernels compiled, with their declared signatures only."""

from __future__ import annotations

import pytest

from replay_native import jit


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    jit.warm(["shared", "hdr", "hdr_decode", "http1", "record"])
