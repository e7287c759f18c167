"""What the coordinator shows of a run while it goes: sinks, web hooks, the live page and watched figures."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from replay.staging.sink import Sink

from .support import evening, running, until, url

pytestmark = [pytest.mark.whole, pytest.mark.timing]

SCENARIO = """
trace = "t.trace"
[[watch]]
name = "answer"
command = "echo 42"
"""


def test_sinks_and_watched_figures_are_those_of_the_whole_run(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=6, per_second=100)
    (tmp_path / "day.toml").write_text(SCENARIO)
    sinks = ("--sink", "jsonl=rows.jsonl", "--sink", "csv=rows.csv")
    with Sink() as sink:
        how = ("day.toml", "--target", url(sink), "--cluster", "local:2", "-t", "1", *sinks)
        with running(tmp_path, *how) as run:
            _, printed = run.wait()
    document = run.document()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    for name in ("planned", "sent", "ok"):
        assert sum(row[name] for row in rows) == document["accounts"][name] == 600, printed
    assert "watched answer" in (tmp_path / "rows.csv").read_text().splitlines()[0]
    assert document["watches"][0]["name"] == "answer" and document["watches"][0]["samples"] > 0
    assert 42.0 in document["watched"]["answer"]
    assert any(row.get("watched") == {"answer": 42.0} for row in rows)


def test_web_hooks_and_the_live_page_tell_of_a_lost_agent(tmp_path: Path) -> None:
    evening(tmp_path / "t.trace", seconds=8, per_second=50)
    with Sink() as sink, Sink() as hook:
        watched = ("--notify", f"{url(hook)}/hook", "--live", "--sink", "jsonl=rows.jsonl")
        how = ("t.trace", "--target", url(sink), "--cluster", "local:2", "-t", "1", "--on-lost", "continue")
        with running(tmp_path, *how, *watched) as run:
            run.await_start(2)
            until(lambda: len(sink.stamps()["seq"]) > 60)
            os.kill(run.agent_pids()[1], signal.SIGKILL)
            _, printed = run.wait()
        assert hook.arrivals >= 2, printed
    assert "live page: http" in printed and "LOST agent 1" in printed
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    # The seconds that a killed agent had not reported yet are in its folder, and not in the sinks.
    assert 0 < sum(row["sent"] for row in rows) <= run.document()["accounts"]["sent"]
