"""A pytest plug-in with the fixture `replay_run`, by which a test replays a trace and checks the latencies.

    def test_checkout_is_fast(replay_run):
        run = replay_run("monday.trace", target="http://127.0.0.1:8080", speed=2)
        run.assert_slo("p99<250ms", 'p99 of "POST /checkout" < 500ms', "errors<1%")

pytest loads the plug-in in every session, so it imports nothing heavy until a test runs something.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from os import PathLike
    from typing import Unpack

    from replay.engine.sinks import Sink
    from replay.results.run import Run
    from replay.settings.typed import Settings
    from replay.trace import Trace


class ReplayRun(Protocol):
    """The type of the fixture `replay_run`: `replay.run`, with a new folder under `tmp_path` if `out` is not given."""

    def __call__(
        self,
        trace: Trace | str | PathLike[str],
        *,
        target: str,
        out: str | PathLike[str] | None = None,
        sinks: Sequence[Sink | str] = (),
        **settings: Unpack[Settings],
    ) -> Run:
        """Replay a trace onto `target`, and return the run."""
        ...


@pytest.fixture
def replay_run(request: pytest.FixtureRequest, tmp_path: Path) -> ReplayRun:
    """Return a function that replays a trace, as `replay.run` does.

    Without `out`, the run's folder is created under `tmp_path`. The report of a failed test describes its runs.
    """
    numbers = itertools.count(1)

    def run(
        trace: Trace | str | PathLike[str],
        *,
        target: str,
        out: str | PathLike[str] | None = None,
        sinks: Sequence[Sink | str] = (),
        **settings: Unpack[Settings],
    ) -> Run:
        import replay

        folder = tmp_path / f"replay-run-{next(numbers)}" if out is None else out
        found = replay.run(trace, target=target, out=folder, sinks=sinks, **settings)
        request.node.add_report_section("call", "replay", f"{found!r}\n")
        return found

    return run
