"""A plan counts what will be sent; the schedule says when each request is due. Held against obvious twins."""

from __future__ import annotations

import io
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay import units
from replay.errors import (
    InputError,
    LimitError,
    ReplayError,
    UsageError,
)
from replay.lane import sizing
from replay.lane.sizing import check_sockets
from replay.plan.schedule import ClientsPlan, Schedule, make_schedule
from replay.protocols.registry import unused_settings
from replay.report.console import Console
from replay.report.plan import print_plan
from replay.settings.file import load
from replay.trace import Trace, TraceWriter
from tests.reference import naive
from tests.support.http_plan import checked, render_of
from tests.support.trace_data import START_NS, Row, write_trace

S = units.SECOND_NS
TARGET = "http://127.0.0.1:1"

ROWS = st.builds(
    Row,
    at_ns=st.integers(0, 200 * S),
    method=st.sampled_from(["GET", "HEAD", "POST", "CONNECT"]),
    target=st.sampled_from([b"/", b"/a", b"/users/1", b"/users/2?x=y"]),
    client=st.integers(0, 3),
    status=st.sampled_from([-1, 200, 304, 404, 503]),
    took_ns=st.one_of(st.just(-1), st.integers(0, 10 * S)),
    host=st.none(),
)


def plan(trace: Trace, scenario_path: Path | None = None, **flags: Any) -> Schedule:
    return checked(make_schedule(trace, load(scenario_path, {"target": TARGET, **flags})))


def all_rows(schedule: Schedule, limit: int = 1 << 30) -> list[tuple[int, int, int, bytes, int]]:
    """Due time, sequence, recorded time, target and client of everything, up to a limit."""
    requests = schedule.trace.requests
    rows = (
        (
            int(b.due_ns[i]),
            b.first_seq + i,
            int(b.at_ns[i]),
            requests.get(int(b.request[i])).target,
            int(b.client[i]),
        )
        for b in schedule.batches()
        for i in range(len(b))
    )
    return list(itertools.islice(rows, limit))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(ROWS, min_size=1, max_size=60),
    speed=st.sampled_from([1, 0.5, 3, 7.3]),
    methods=st.sampled_from(["GET", "GET,HEAD", "all"]),
    window=st.tuples(st.integers(0, 100), st.integers(101, 300)),
)
def test_what_is_due_when_is_what_the_twin_says(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    speed: float,
    methods: str,
    window: tuple[int, int],
) -> None:
    trace = write_trace(tmp_path_factory.mktemp("t") / "t.trace", rows)
    from_ns = trace.start_ns + window[0] * S
    until_ns = from_ns + (window[1] - window[0]) * S
    sendable = {"GET", "HEAD", "POST"} if methods == "all" else set(methods.split(","))
    ordered = sorted(rows, key=lambda row: row.at_ns)
    inside = [row for row in ordered if from_ns <= START_NS + row.at_ns < until_ns]
    expected = [
        (naive.due_ns(START_NS + row.at_ns, from_ns, speed), START_NS + row.at_ns)
        for row in inside
        if row.method in sendable
    ]
    flags: dict[str, Any] = {
        "speed": speed, "methods": methods, "empty_bodies": True,
        "window.from": f"+{window[0]}s", "window.until": f"+{window[1] - window[0]}s",
    }  # fmt: skip
    if not expected:
        with pytest.raises(UsageError):
            plan(trace, **flags)
        return
    schedule = plan(trace, **flags)
    got = all_rows(schedule)
    assert [(due, at) for due, _, at, _, _ in got] == expected
    assert [seq for _, seq, *_ in got] == list(range(len(expected)))
    made = schedule.plan
    assert made.rows == len(expected)
    assert made.rows + sum(made.skipped.values()) == trace.rows
    assert made.skipped.get("outside the window", 0) == len(rows) - len(inside)
    assert sum(made.by_method.values()) == made.rows == sum(route.rows for route in made.by_route)
    dues = [due for due, _ in expected]
    assert made.peak_1s_per_s == naive.peak(dues, S)


def test_the_route_figures_are_the_recordings(tmp_path: Path) -> None:
    rows = [Row(n, "GET", b"/a", status=200 if n % 4 else 503, took_ns=n * units.MS_NS) for n in range(100)]
    trace = write_trace(tmp_path / "t.trace", [*rows, Row(5, "GET", b"/b"), Row(6, "POST", b"/a")])
    made = plan(trace).plan
    (route,) = [route for route in made.by_route if route.route == "GET /a"]
    assert route.recorded.statuses == {"2xx": 75, "5xx": 25}
    assert route.recorded.p50_ns == pytest.approx(49 * units.MS_NS, rel=0.02)
    assert route.recorded.p99_ns == pytest.approx(98 * units.MS_NS, rel=0.02)
    assert made.skipped == {"method POST": 1}
    assert [each.route for each in made.by_route] == trace.requests.routes


def test_a_peak_is_found_where_it_was_recorded(tmp_path: Path) -> None:
    burst = [Row(100 * S + n * units.MS_NS) for n in range(500)]
    trace = write_trace(tmp_path / "t.trace", [*(Row(n * S) for n in range(200)), *burst])
    made = plan(trace).plan
    assert made.peak_1s_per_s == pytest.approx(502, abs=1)
    assert made.peak_at_ns is not None and 99 * S <= made.peak_at_ns <= 100.5 * S
    assert made.peak_60s_per_s == pytest.approx(560 / 60, rel=0.01)
    assert plan(trace, speed=10).plan.peak_1s_per_s == pytest.approx(510, abs=2)


def test_connections_are_what_was_in_flight_in_the_busiest_second(tmp_path: Path) -> None:
    trace = write_trace(
        tmp_path / "t.trace", [Row(n * S // 100, took_ns=200 * units.MS_NS) for n in range(500)]
    )
    made = plan(trace).plan
    assert made.connections_recorded and made.connections_estimate == 20
    assert plan(trace, speed=5).plan.connections_estimate == 100
    assert plan(trace, rate="1000/s").plan.connections_estimate == pytest.approx(200, rel=0.02)


def test_a_duration_ends_the_recorded_pace(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(n * S) for n in range(100)])
    schedule = plan(trace, duration="10s", speed=2)
    assert schedule.plan.rows == 20 == len(all_rows(schedule))
    assert schedule.plan.skipped == {"after the duration": 80}
    assert schedule.plan.length_ns == pytest.approx(10 * S, rel=1e-6)


def test_a_constant_rate_sends_each_row_once(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(n * n) for n in range(1000)])
    schedule = plan(trace, rate="300/s")
    dues = [due for due, *_ in all_rows(schedule)]
    assert dues == [int(n * (S / 300)) for n in range(1000)]
    assert schedule.plan.peak_1s_per_s == pytest.approx(300)
    assert schedule.plan.length_ns == pytest.approx(1000 / 300 * S)


def test_a_constant_rate_with_a_duration_repeats_the_trace(tmp_path: Path) -> None:
    rows = [Row(n, target=b"/%d" % (n % 5), method="GET" if n % 5 else "POST") for n in range(10)]
    trace = write_trace(tmp_path / "t.trace", rows)
    schedule = plan(trace, rate="100/s", duration="250ms")
    got = all_rows(schedule)
    assert len(got) == 25 == schedule.plan.rows
    assert [target for *_, target, _ in got[:8]] == [target for *_, target, _ in got[8:16]]
    assert [seq for _, seq, *_ in got] == list(range(25))
    assert schedule.plan.by_method == {"GET": 25}
    assert schedule.plan.passes == pytest.approx(25 / 8)
    found = schedule.lookup([3, 11, 19])
    assert len(set(found.values())) == 1 and found[11].target == got[3][3].decode()


def test_a_closed_loop_is_due_at_once_and_repeats_while_there_is_time(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(n) for n in range(7)])
    once = plan(trace, rate="max")
    assert once.plan.rows == 7 and {due for due, *_ in all_rows(once)} == {0}
    assert (once.plan.peak_1s_per_s, once.plan.length_ns) == (None, None)
    endless = plan(trace, rate="max", duration="1s")
    assert endless.plan.rows is None and endless.plan.length_ns == S
    assert [seq for _, seq, *_ in all_rows(endless, 100)] == list(range(100))


def test_rows_are_looked_up_by_their_sequence(tmp_path: Path) -> None:
    rows = [Row(n * 10, "GET" if n % 3 else "POST", b"/%d" % n) for n in range(1000)]
    schedule = plan(write_trace(tmp_path / "t.trace", rows))
    sent = [row for row in rows if row.method == "GET"]
    found = schedule.lookup([0, 17, 600, 665, 665])
    for seq in (0, 17, 600, 665):
        assert (found[seq].at_ns, found[seq].target) == (
            START_NS + sent[seq].at_ns,
            sent[seq].target.decode(),
        )
    assert schedule.lookup([]) == {}
    shutil.rmtree(schedule.trace.path)
    assert schedule.lookup([0]) == {}, "a result does not depend on a trace that went away"


def test_a_window_is_of_the_recordings_own_zone(tmp_path: Path) -> None:
    hours = [Row(n * 3600 * S) for n in range(24)]
    trace = write_trace(tmp_path / "t.trace", hours, time_zone="+02:00")
    first = units.to_datetime(trace.start_ns, units.parse_zone("+02:00"))
    asked = f"{(first.hour + 3) % 24:02}:30"
    given: dict[str, Any] = {"window.from": asked, "window.until": "+2h"}
    made = plan(trace, **given).plan
    assert made.rows == 2 and made.utc_offset_s == 7200
    utc = plan(trace, **(given | {"window.tz": "UTC"})).plan
    assert utc.recorded_from_ns - made.recorded_from_ns == 7200 * S


@pytest.mark.parametrize(
    ("flags", "said", "hint"),
    [
        ({"window.from": "+1h"}, "holds nothing of the recording", "the recording is from"),
        ({"window.until": "2001-01-01"}, "holds nothing of the recording", "the recording is from"),
        ({"window.from": "+1s", "window.until": "+1s"}, "holds no requests", "the recording is from"),
        ({"methods": "PUT"}, "nothing would be sent", "--methods GET,POST"),
        ({"methods": "all"}, "has no bodies for POST /a", "--empty-bodies"),
        ({"warm_up": "1h"}, "leaves nothing to measure", ""),
        ({"headers": {"A": "$REPLAY_NO_SUCH_VARIABLE"}}, "REPLAY_NO_SUCH_VARIABLE is not set", "export"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned(tmp_path: Path, flags: dict[str, Any], said: str, hint: str) -> None:
    rows = [Row(0), Row(5 * S, "POST", b"/a"), Row(10 * S)]
    with pytest.raises(ReplayError) as caught:
        plan(write_trace(tmp_path / "t.trace", rows), **flags)
    assert said in str(caught.value) and hint in caught.value.hint


def test_an_empty_trace(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no requests"):
        plan(write_trace(tmp_path / "t.trace", []))


def test_routes_without_a_body_are_named_until_a_rule_covers_them(tmp_path: Path) -> None:
    rows = [Row(0, "POST", b"/v1/users"), Row(1, "PUT", b"/v1/plan"), Row(2)]
    trace = write_trace(tmp_path / "t.trace", rows)
    rules = tmp_path / "s.toml"
    rules.write_text('methods = "all"\n[[body]]\nroute = "POST /v1/users"\ntemplate = "x"\n')
    with pytest.raises(UsageError, match=r"no bodies for PUT /v1/plan$"):
        plan(trace, rules)
    rules.write_text('methods = "all"\n[[body]]\nroute = "P* /v1/*"\ntemplate = "x"\n')
    assert plan(trace, rules).plan.rows == 3
    rules.write_text('methods = "all"\n[[body]]\nroute = "POST /v1/user"\ntemplate = "x"\n')
    with pytest.raises(UsageError, match="did you mean 'POST /v1/users'"):
        plan(trace, rules)
    rules.write_text('methods = "all"\n[[body]]\nroute = "P*"\nfile = "none.json"\n')
    with pytest.raises(InputError, match="none"):
        plan(trace, rules)


def test_a_trace_of_several_files_is_planned_as_one(tmp_path: Path) -> None:
    count = (1 << 20) + 70_000
    rng = np.random.default_rng(5)
    at = np.sort(rng.integers(0, 600 * S, count)) + START_NS
    from replay.trace import TraceWriter

    with TraceWriter(tmp_path / "t.trace") as writer:
        ids = np.array([writer.add_request(method, b"/") for method in ("GET", "DELETE")], np.uint32)
        chosen = ids[rng.integers(0, 2, count)]
        writer.add_events(at, chosen, np.zeros(count, np.uint32))
    assert writer.trace is not None
    schedule = plan(writer.trace, speed=4)
    batches = list(schedule.batches())
    due = np.concatenate([batch.due_ns for batch in batches])
    expected = np.rint((at[chosen == ids[0]] - at[0]) / 4).astype(np.int64)
    assert np.array_equal(due, expected)
    assert [batch.first_seq for batch in batches] == np.cumsum([0, *map(len, batches)]).tolist()[:-1]
    assert schedule.plan.rows == len(expected)
    last = schedule.lookup([len(expected) - 1])
    assert last[len(expected) - 1].at_ns == at[chosen == ids[0]][-1]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROWS, min_size=1, max_size=60), idle_s=st.integers(1, 60))
def test_clients_with_connections_of_their_own_are_what_the_twin_counts(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], idle_s: int
) -> None:
    rows = [row._replace(method="GET") for row in rows]
    trace = write_trace(tmp_path_factory.mktemp("t") / "t.trace", rows)
    schedule = plan(trace, connect="per-client", idle_timeout=f"{idle_s}s")
    counted = schedule.plan.clients
    assert counted is not None
    due = [(due_ns, client) for due_ns, _, _, _, client in all_rows(schedule)]
    assert (counted.at_once, counted.connects, counted.connects_peak_1s) == naive.clients_at_once(
        due, idle_s * S
    )


def test_a_plan_says_how_many_clients_are_connected_at_once(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(n * S // 100, client=n) for n in range(300)])
    schedule = plan(trace, connect="per-client", idle_timeout="1s")
    assert schedule.plan.clients == ClientsPlan(at_once=101, connects=300, connects_peak_1s=100)
    assert plan(trace).plan.clients is None
    text = io.StringIO()
    print_plan(schedule.plan, schedule.scenario, [], Console(file=text, width=120))
    assert "one per client, 101 at once" in text.getvalue()


def shown(schedule: Schedule) -> str:
    text = io.StringIO()
    print_plan(schedule.plan, schedule.scenario, [], Console(file=text, width=160))
    return text.getvalue()


def test_headers_and_hosts_that_the_recording_lacks_are_said(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"send_headers": "user-agent", "rewrite_host": ["a.test=b.test"]}
    said = shown(plan(write_trace(tmp_path / "t.trace", [Row(0)]), **settings))
    assert "user-agent as recorded: none, because this recording has no headers" in said
    assert "a.test as b.test: none, because this recording has no hosts" in said
    with TraceWriter(tmp_path / "h.trace") as writer:
        index = writer.add_request("GET", b"/", host="a.test", headers=((b"User-Agent", b"x"),))
        writer.add_events(np.array([START_NS]), np.array([index], np.uint32), np.zeros(1, np.uint32))
    assert writer.trace is not None
    assert "none, because" not in shown(plan(writer.trace, **settings))


def test_records_have_no_connections_of_their_own(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(0)])
    said = shown(
        plan(trace, target="kafka://127.0.0.1:1/t", methods="all", kafka={"compression_type": "lz4"})
    )
    assert "acks 1, lz4; batches every 1 ms" in said and "30 s for an acknowledgement" in said
    assert "connection" not in said


def test_sockets_that_this_machine_does_not_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(n, client=n) for n in range(300)])
    schedule = plan(trace, connect="per-client")
    check_sockets(schedule.plan, schedule.scenario, 1)
    monkeypatch.setattr(sizing, "PORT_RANGE", tmp_path / "range")
    (tmp_path / "range").write_text("1000\t1199\n")
    with pytest.raises(LimitError, match=r"300 clients .* this machine has 200 for 1 address") as caught:
        check_sockets(schedule.plan, schedule.scenario, 1)
    assert "ip_local_port_range" in str(caught.value.hint)
    check_sockets(schedule.plan, schedule.scenario, 2)
    capped = plan(trace, connect="per-client", connections=150)
    check_sockets(capped.plan, capped.scenario, 1)
    monkeypatch.setattr(sizing, "_open_files", lambda: 320)
    with pytest.raises(LimitError, match=r"300 clients .* need 364 open files; this process may open 320"):
        check_sockets(schedule.plan, schedule.scenario, 2)


def test_a_feed_holds_what_may_wait_and_no_more_than_there_is_to_send(tmp_path: Path) -> None:
    steady = plan(write_trace(tmp_path / "steady.trace", [Row(n * S) for n in range(60)]))
    crowd = plan(write_trace(tmp_path / "crowd.trace", [Row(n) for n in range(10_000)]))
    assert sizing.feed_size(steady, steady.scenario, 100, 1) == (22, 2_200)
    assert sizing.feed_size(crowd, crowd.scenario, 100, 1) == (20_000, 2_000_000)


def test_a_connection_for_each_request_says_that_it_is_the_last(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(0)])
    assert b"\r\nConnection: close\r\n" in render_of(plan(trace, connect="per-request")).headers
    assert b"Connection" not in render_of(plan(trace)).headers


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"tls.insecure": True}, ["tls.insecure (for https targets)"]),
        ({"target": "https://127.0.0.1", "tls.insecure": True}, []),
        ({"kafka.compression_type": "gzip", "kafka.consume": True},
         ["kafka.compression_type, kafka.consume (for Kafka targets)"]),
        ({"target": "kafka://127.0.0.1:9092/t", "kafka.compression_type": "gzip"}, []),
        ({"target": "kafka://127.0.0.1:9092/t", "kafka.ssl_cafile": "ca.pem", "tls.ca": "ca.pem"},
         ["tls.ca (for https targets)", "kafka.ssl_cafile (for kafka.security_protocol SSL and SASL_SSL)"]),
        ({"target": "kafka://127.0.0.1:9092/t", "kafka.ssl_cafile": "c", "kafka.security_protocol": "SSL"}, []),
        ({}, []),
    ],
)  # fmt: skip
def test_settings_that_no_target_uses_are_said(flags: dict[str, Any], said: list[str]) -> None:
    assert unused_settings(load(None, {"target": TARGET, **flags})) == said


def test_a_setting_is_used_if_one_of_several_targets_uses_it(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        f'target = "{TARGET}"\n[tls]\ninsecure = true\n[kafka]\nconsume = true\n'
        '[[also]]\ntarget = "kafka://127.0.0.1:9092/t"\nmethods = "all"\nonly = ["POST /x"]\n'
    )
    assert unused_settings(load(path, {})) == ["tls.insecure (for https targets)"]


def test_the_plan_has_a_line_for_them(tmp_path: Path) -> None:
    schedule, text = plan(write_trace(tmp_path / "t.trace", [Row(0)])), io.StringIO()
    unused = ["tls.insecure (for https targets)"]
    print_plan(schedule.plan, schedule.scenario, [], Console(file=text, width=120), unused=unused)
    assert "not used  tls.insecure (for https targets)" in text.getvalue()
