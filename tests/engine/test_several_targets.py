"""One recorded day onto services and a bus at once: one timeline, one run folder, accounts of each target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from replay.engine import prepare
from replay.errors import UsageError
from replay.plan.schedule import make_schedule
from replay.protocols.scenario import load_scenario as load
from replay.report.run_page import write_run_page
from replay.results.document import Consumed, RunDocument
from replay.results.run import load_run
from replay.staging.sink import Sink
from replay.trace import Trace, TraceWriter
from tests.kafka.test_mock import (
    START_NS,
    mock,
    printed,
    read_back,
)
from tests.support.there import there

__all__ = ["mock"]

ROWS = 400
GAP_NS = 2_500_001


def recorded_day(path: Path) -> Trace:
    """GETs and every fourth a POST, 2.5 ms apart."""
    with TraceWriter(path) as writer:
        get, post = writer.add_request("GET", b"/v1/users"), writer.add_request("POST", b"/v1/orders")
        ids = np.where(np.arange(ROWS) % 4 == 3, post, get).astype(np.uint32)
        writer.add_events(
            START_NS + np.arange(ROWS, dtype=np.int64) * GAP_NS,
            ids,
            (np.arange(ROWS) % 7).astype(np.uint32),
        )
    assert writer.trace is not None
    return writer.trace


def replay(trace: Trace, out: Path, text: str) -> RunDocument:
    path = out.with_suffix(".toml")
    path.write_text(text)
    scenario = load(path)
    with prepare(trace, scenario) as prepared:
        return prepared.run(out)


@pytest.mark.whole
def test_services_and_the_bus_on_one_timeline(mock, tmp_path):
    check_one_timeline(mock, tmp_path)


def check_one_timeline(broker: str, tmp_path: Path) -> None:
    """One trace onto the sink and the topic orders-day of a broker: all arrives, at due times that agree."""
    with Sink() as sink:
        document = replay(
            recorded_day(tmp_path / "day.trace"), tmp_path / "run",
            f"""
            target = "http://127.0.0.1:{sink.port}"
            methods = "all"
            without = ["POST *"]
            [kafka]
            consume = true
            [[also]]
            target = "kafka://{broker}/orders-day"
            only = ["POST *"]
            value = '{{at_ms}} {{n}}'
            """,
        )  # fmt: skip
        arrived = sink.memory.stamps()
    run = load_run(tmp_path / "run")

    services, bus = document.targets
    assert (services.engine, bus.engine, document.generator.engine) == ("native", "kafka", "mixed")
    assert (services.accounts.planned, services.accounts.ok) == (300, 300)
    assert (bus.accounts.planned, bus.accounts.ok) == (100, 100)
    assert document.accounts.planned == document.accounts.sent == document.accounts.ok == ROWS
    assert document.target == f"{services.target}, {bus.target}"
    assert {route.route.split("/")[0] for route in document.routes} == {"GET ", "PRODUCE orders-day"}

    assert len(arrived[arrived["seq"] >= 0]) == 300
    assert sorted(arrived["seq"].tolist()) == list(range(300))
    back = read_back(broker, "orders-day", 100)
    assert sorted(int(record.value.split()[1]) for record in back) == list(range(300, 400))

    samples = run.samples()
    assert {sample.route.split(" ")[0] for sample in samples} == {"GET", "PRODUCE"}
    assert all(sample.due_ns == (sample.recorded_ns or 0) - START_NS for sample in samples)
    for record in back:
        due_ms = (document.start.wall_ns - START_NS) / 1e6 + int(record.value.split()[0])
        assert record.timestamp == pytest.approx(due_ms, abs=1.01)

    assert bus.kafka is not None and bus.kafka.offsets_agree
    assert bus.kafka.consumed == {"end_to_end": Consumed(count=100)}
    assert there(bus.latency.end_to_end).count == 100 and there(services.latency.response).count == 300
    text = printed(tmp_path / "run")
    assert f"Target {services.target}" in text and f"Target {bus.target}" in text and "end to end" in text
    write_run_page(run, tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert f"Target {bus.target}" in page and "due to consumed" in page


@pytest.mark.whole
def test_two_services_have_routes_of_their_own(tmp_path):
    with Sink() as first, Sink() as second:
        document = replay(
            recorded_day(tmp_path / "day.trace"), tmp_path / "run",
            f"""
            target = "http://127.0.0.1:{first.port}"
            [[also]]
            target = "http://127.0.0.1:{second.port}"
            """,
        )  # fmt: skip
    assert [target.accounts.ok for target in document.targets] == [300, 300]
    names = {route.route: route.count for route in document.routes}
    assert names == {"GET /v1/users": 300, f"GET /v1/users @ 127.0.0.1:{second.port}": 300}
    assert document.accounts.skipped == 200


def test_a_further_target_that_is_none_is_named_with_its_line(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text('target = "http://127.0.0.1"\n[[also]]\ntarget = "kafka://h:99999/t"\n')
    with pytest.raises(UsageError, match=r"line 3: also\[0\]\.target"):
        load(path)


def test_further_targets_are_refused_where_they_cannot_be_sent_to(tmp_path):
    scenario = load(None, {"target": "http://127.0.0.1", "also": [{"target": "http://127.0.0.1:81"}]})
    with pytest.raises(UsageError, match="further targets"):
        make_schedule(recorded_day(tmp_path / "day.trace"), scenario)
