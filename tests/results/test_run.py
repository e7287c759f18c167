"""What a run leaves behind: written while it goes, whole at the end, and rebuilt when it was killed."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections import Counter

import msgspec
import numpy as np
import pytest

from replay.errors import InputError, OutputError, UsageError
from replay.ledger import host
from replay.ledger.accounts import UNSENT_REASONS
from replay.ledger.histogram import NS_3, empty
from replay.results import hlog
from replay.results.beginnings import shown
from replay.results.document import (
    Ending,
    Recorded,
    RouteStart,
    RunDocument,
)
from replay.results.folder import AppendFile, RunFolder
from replay.results.run import load_run
from replay.results.samples import RecordedRow
from replay_native.http1 import parser as http1
from replay_native.ledger import hdr, lane_metrics, record
from replay_native.ledger.lane_metrics import C
from tests.support.metrics_data import (
    CLOCK,
    MAX_WAIT_NS,
    MS,
    ROUTES,
    START,
    at_s,
    trial,
)
from tests.support.there import there


def test_a_run_is_written_down_and_read_back(tmp_path):
    made = trial(tmp_path / "run", slo=["p99<1s", "errors<0.1%"], skipped={"method": 4})
    lane = made.lanes[0]
    lane.many(300)
    lane.request(1, "5xx", service_ms=900)
    lane.request(2, "timeout", service_ms=3_000)
    lane.request(0, warm_up=True)
    written = made.recorder.finish(at_s(2), control_cpu_s=0.25)
    run = load_run(tmp_path / "run")
    assert run.document == written
    assert not run.recovered
    accounts = run.document.accounts
    assert (accounts.planned, accounts.sent, accounts.ok, accounts.timeout) == (303, 303, 302, 1)
    assert accounts.skipped == 4
    assert run.document.accounts_detail.warm_up == 1
    assert there(run.document.latency.response).count == 302
    assert [(slo.passed, slo.unit) for slo in run.document.slo] == [(True, "ns"), (False, "share")]
    assert run.document.slo[1].value == pytest.approx(2 / 302)
    assert {r.route: r.count for r in run.document.routes} == {ROUTES[0]: 100, ROUTES[1]: 101, ROUTES[2]: 101}
    assert sum(r.share for r in run.document.routes) == pytest.approx(1, abs=1e-5)
    assert sorted(p.name for p in run.folder.path.iterdir()) == [
        "latency.hlog", "run.json", "samples.jsonl", "timeline.jsonl", "totals.hlog",
    ]  # fmt: skip


def test_an_action_has_a_line_of_all_its_routes(tmp_path):
    recorded = Recorded(count=50, statuses={"2xx": 49, "5xx": 1}, p50_ns=3 * MS, p99_ns=40 * MS)
    of_actions = ("browsing", "browsing", "registration")
    named = [RouteStart(route, recorded, action) for route, action in zip(ROUTES, of_actions, strict=True)]
    made = trial(tmp_path / "run", named=named)
    lane = made.lanes[0]
    lane.many(90)
    lane.request(1, "5xx", service_ms=900)
    browsing, registration = made.recorder.finish(at_s(2)).actions
    assert (browsing.route, browsing.count, browsing.outcomes) == ("browsing", 61, {"2xx": 60, "5xx": 1})
    assert there(browsing.service).max_ns == pytest.approx(900 * MS, rel=0.02)
    assert (there(browsing.recorded).count, there(browsing.recorded).statuses) == (100, {"2xx": 98, "5xx": 2})
    assert there(browsing.recorded).p99_ns is None, "percentiles of several routes do not add up"
    assert (registration.count, registration.recorded) == (30, recorded)


def test_names_that_scripts_rely_on(tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].many(10)
    made.recorder.finish(at_s(1))
    document = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert set(document["accounts"]) == {
        "planned", "skipped", "sent", "unsent", "ok", "error", "timeout", "in_flight",
    }  # fmt: skip
    assert {"response", "lateness", "wait", "service"} <= set(document["latency"])
    assert {
        "count", "min_ns", "mean_ns", "stdev_ns", "p50_ns", "p90_ns", "p95_ns", "p99_ns", "p99_9_ns",
        "p99_99_ns", "max_ns",
    } <= set(document["latency"]["response"])  # fmt: skip
    assert {"cpu_s", "lanes_cpu_s", "control_cpu_s", "lanes"} <= set(document["generator"])
    assert set(document["validity"]) == {"verdict", "reasons"}
    assert document["routes"][0]["route"]


def test_a_run_says_how_much_memory_it_had(tmp_path):
    document = trial(tmp_path / "run").recorder.finish(at_s(1))
    assert document.generator.peak_rss_bytes == pytest.approx(host.peak_rss_bytes(), rel=0.01)


def test_memory_is_a_program_s_own_and_not_that_of_who_started_it():
    large = bytearray(b"x") * (256 << 20)
    code = "from replay.ledger import host; print(host.peak_rss_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 10 << 20 < int(done.stdout) < len(large)


def test_response_is_the_sum_of_its_parts_at_every_percentile_that_is_reported(tmp_path):
    made = trial(tmp_path / "run")
    for lane_ms in range(1, 201):
        made.lanes[0].request(0, late_ms=1.0, wait_ms=2.0, service_ms=float(lane_ms))
    latency = made.recorder.finish(at_s(1)).latency
    assert there(latency.lateness).p50_ns == pytest.approx(1 * MS, rel=1e-3)
    assert there(latency.wait).p99_ns == pytest.approx(2 * MS, rel=1e-3)
    assert latency.service.p99_ns == pytest.approx(198 * MS, rel=1e-3)
    assert there(latency.response).p99_ns == pytest.approx(201 * MS, rel=1e-3)


def test_every_request_lands_in_exactly_one_interval_while_lanes_go_on(tmp_path):
    made = trial(tmp_path / "run", lanes=3)
    for second in range(45):
        for lane in made.lanes:
            lane.many(5, seed=second)
        row = made.recorder.tick(at_s(second + 1))
        assert (row.planned, row.ok) == (15, 15)
    made.lanes[0].request(0)
    made.recorder.finish(at_s(46))
    totals = hlog.read_hlog(made.folder.totals).by_tag()
    summed = hlog.read_hlog(made.folder.latency).by_tag()
    for tag in ("response.all", "response.ok", "lateness.all", "wait.all", "service.all"):
        assert np.array_equal(totals[tag].counts, summed[tag].counts)
    for route in ROUTES:
        tag = hlog.tag_of("response", route, "2xx")
        assert np.array_equal(totals[tag].counts, summed[tag].counts)
    assert sum(row.planned for row in load_run(made.folder.path).seconds()) == 45 * 15 + 1


def test_intervals_by_route_meet_without_gaps_and_are_bounded_in_number(tmp_path):
    made = trial(tmp_path / "run")
    tag, hours = hlog.tag_of("response", ROUTES[0], "2xx"), 3
    for minute in range(hours * 60):
        made.lanes[0].request(0)
        made.recorder.tick(at_s(60.0 * (minute + 1)))
    made.recorder.finish(at_s(hours * 3600 + 1))
    mine = [i for i in hlog.read_hlog(made.folder.latency).intervals if i.tag == tag]
    ends = [i.start_s + i.length_s for i in mine]
    assert all(i.length_s >= 59 for i in mine[:-1])
    assert mine[0].start_s == pytest.approx(START.wall_ns / 1e9, abs=0.01)
    assert all(abs(end - after.start_s) < 0.01 for end, after in zip(ends, mine[1:], strict=False))
    assert len(mine) < 150 + 60


def test_intervals_by_route_last_a_second_in_a_short_run_of_few_routes(tmp_path):
    made = trial(tmp_path / "run")
    for second in range(30):
        made.lanes[0].request(0, due_ms=1e3 * second)
        made.recorder.tick(at_s(second + 1.001 - second % 2 * 0.002))
    made.recorder.finish(at_s(30.5))
    tag = hlog.tag_of("response", ROUTES[0], "2xx")
    mine = [i for i in hlog.read_hlog(made.folder.latency).intervals if i.tag == tag]
    assert len(mine) == 30 and all(0.9 < i.length_s < 1.1 for i in mine)


def test_a_route_that_found_the_arena_full_is_counted_once_as_other(tmp_path):
    slot_bytes = 2 * hdr.COUNTERS_2 * 4
    made = trial(tmp_path / "run", arena_bytes=(lane_metrics.N_OUTCOMES + 2) * slot_bytes)
    for _ in range(10):
        for route in range(3):
            made.lanes[0].request(route)
    made.recorder.tick(at_s(20))
    document = made.recorder.finish(at_s(21))
    assert {r.route: r.count for r in document.routes} == {ROUTES[0]: 10, ROUTES[1]: 10, "other": 10}
    assert [there(r.response).count for r in document.routes] == [10, 10, 10]
    (note,) = (note for note in document.notes if note.code == "ROUTES_MERGED")
    assert "'other' stands for up to 1 pair of a route and an outcome" in note.message


def test_a_percentile_among_requests_never_sent_is_a_lower_bound(tmp_path):
    made = trial(tmp_path / "run", slo=["p50<20s", "p99<20s"])
    made.lanes[0].many(90)
    for _ in range(10):
        made.lanes[0].unsent(0)
    document = made.recorder.finish(at_s(1))
    response = document.latency.response
    assert "p50_ns" not in there(response).at_least
    assert "p95_ns" in there(response).at_least and "mean_ns" in there(response).at_least
    assert there(response).p95_ns == MAX_WAIT_NS
    assert document.latency.service.at_least == []
    assert [(slo.passed, slo.at_least) for slo in document.slo] == [(True, False), (False, True)]
    assert there(document.routes[0].response).at_least


def test_a_closed_loop_has_no_response_lateness_or_wait(tmp_path):
    made = trial(tmp_path / "run", closed_loop=True)
    made.lanes[0].many(50)
    made.recorder.tick(at_s(1))
    made.recorder.finish(at_s(11))
    document = json.loads(made.folder.run.read_bytes())
    assert set(document["latency"]) == {"service", "first_byte"}
    assert document["routes"][0]["response"] is None
    tags = set(hlog.read_hlog(made.folder.totals).by_tag()) | set(
        hlog.read_hlog(made.folder.latency).by_tag()
    )
    assert {tag.partition(".")[0] for tag in tags} == {"service", "first_byte"}
    assert document["validity"]["verdict"] == "VALID"


def test_what_histograms_do_not_tell_apart_is_a_lower_bound(tmp_path):
    hour_ms, max_wait_ns = 3_600_000.0, 3 * 3_600 * 10**9
    made = trial(tmp_path / "run", slo=["p50<2h", "p99<4h"], max_wait_ns=max_wait_ns)
    for at in range(10):
        made.lanes[0].request(0, service_ms=hour_ms / 2 if at < 8 else 2 * hour_ms)
    row = made.recorder.tick(at_s(1))
    document = made.recorder.finish(at_s(2))
    for latency in (document.latency.response, document.latency.service, document.routes[0].response):
        assert there(latency).at_least == [
            "mean_ns",
            "p90_ns",
            "p95_ns",
            "p99_ns",
            "p99_9_ns",
            "p99_99_ns",
            "max_ns",
        ]
        assert there(latency).p90_ns == there(latency).max_ns == hdr.HIGHEST_NS
    assert [(slo.passed, slo.at_least) for slo in document.slo] == [(True, False), (False, True)]
    assert row.figure_ns("response_p99_ns") == (hdr.HIGHEST_NS, True)
    assert row.figure_ns("lateness_p99_ns") != (hdr.HIGHEST_NS, True)


def test_a_sample_of_a_malformed_answer_says_what_is_wrong_and_how_it_begins(tmp_path):
    made = trial(tmp_path / "run", lanes=2)
    for number, lane in enumerate(made.lanes):
        lane.request(0, "reset", due_ms=number)
        beginning = np.frombuffer(b"220 mail\x00 ESMTP".ljust(32, b"!"), np.uint8).copy()
        record.record_malformed(lane.metrics, 0, 0, http1.NOT_HTTP, beginning, 15)
        lane.request(0, "malformed", due_ms=10.0 + number)
        lane.request(0, "reset", due_ms=20.0 + number)
    made.recorder.finish(at_s(1))
    samples = load_run(made.folder.path).samples()
    found = [(s.outcome, s.problem, s.begins) for s in samples if s.kind == "failed"]
    malformed = ("malformed", http1.REASONS[http1.NOT_HTTP], "220 mail\\x00 ESMTP")
    assert found == [("reset", "", "")] * 2 + [malformed] * 2 + [("reset", "", "")] * 2


@pytest.mark.parametrize(
    ("beginning", "text"),
    [
        (b"HTTP/1.1 200 OK", "HTTP/1.1 200 OK"),
        (b"HTTP/2.0 200", "HTTP/2.0 200"),
        (b"HTTP/2 200", "HTTP/2 200"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian", "SSH-2.0[...] Debian"),
        (b"220 mail.example ESMTP", "220 mail.example ESMTP"),
        (b"\x15\x03\x01\x00\x02\\", "\\x15\\x03\\x01\\x00\\x02\\x5c"),
        (b"\x1b[31mred", "\\x1b[...]"),
        (b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIi", "[...]"),
        (b"4111111111111111 x", "[...] x"),
        (b"hunter2 jo@example.org", "[...] [...]"),
        (b"HTTP/1.1hunter2secret", "HTTP/1[...]"),
        ("grün".encode(), "gr\\xc3\\xbcn"),
        (b"", ""),
    ],
)
def test_a_beginning_is_shown_without_secrets_or_control_characters(beginning, text):
    assert shown(beginning) == text


def test_samples_hold_the_slowest_and_the_first_failed_with_both_clocks(tmp_path):
    made = trial(tmp_path / "run", lanes=2)
    for lane in made.lanes:
        for ms in range(40):
            lane.request(0, due_ms=float(ms), service_ms=float(ms))
        for ms in range(25):
            lane.request(0, "reset", due_ms=float(ms))
        lane.unsent(0)

    def lookup(seqs):
        return {
            seq: RecordedRow(CLOCK.start_ns + seq, "GET", f"/users/{seq}?q=%5BREDACTED%5D") for seq in seqs
        }

    made.recorder.finish(at_s(1), lookup=lookup)
    samples = load_run(made.folder.path).samples()
    slowest = [s for s in samples if s.kind == "slowest"]
    failed = [s for s in samples if s.kind == "failed"]
    assert (len(slowest), len(failed)) == (20, 20)
    assert [s.response_ns for s in slowest] == sorted((s.response_ns for s in slowest), reverse=True)
    assert slowest[0].outcome == "unsent" and slowest[0].at_least and slowest[0].done_ns is None
    assert (slowest[0].reason, slowest[0].status, slowest[2].reason) == ("max_wait", None, "")
    assert max(s.due_ns for s in failed) < 12 * MS
    one = slowest[2]
    assert (one.method, one.path) == ("GET", f"/users/{one.seq}?q=%5BREDACTED%5D")
    assert one.recorded_at.startswith("2020-09-13T14:26:40") and one.recorded_at.endswith("+02:00")
    assert one.due_wall_ns == START.wall_ns + one.due_ns
    assert (
        one.due_ns < there(one.taken_ns) < there(one.sent_ns) < there(one.first_byte_ns) < there(one.done_ns)
    )


def test_a_sample_of_an_unsent_request_has_the_reason_that_the_accounts_count_it_by(tmp_path):
    made = trial(tmp_path / "run")
    for reason in UNSENT_REASONS:
        made.lanes[0].unsent(0, reason)
    made.recorder.finish(at_s(1))
    run = load_run(made.folder.path)
    reasons = Counter(sample.reason for sample in run.samples() if sample.kind == "failed")
    assert dict(reasons) == run.document.accounts_detail.unsent == dict.fromkeys(UNSENT_REASONS, 1)


def test_an_earlier_result_is_never_harmed(tmp_path):
    made = trial(tmp_path / "run")
    made.recorder.finish(at_s(1))
    before = made.folder.run.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        RunFolder.create(tmp_path / "run")
    made.folder.discard()
    assert made.folder.run.read_bytes() == before


@pytest.mark.parametrize("place", ["file/run", "\0"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises((OutputError, ValueError)):
        RunFolder.create(tmp_path / place)


def test_what_is_not_a_run_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_run(tmp_path / "missing")
    with pytest.raises(InputError, match=r"no run\.json"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="not the document of a run"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text('{"format_version": 99}')
    with pytest.raises(InputError, match="format version 99"):
        load_run(tmp_path)


def test_a_bad_slo_is_refused_before_anything_is_sent(tmp_path):
    with pytest.raises(UsageError, match="column 1"):
        trial(tmp_path / "run", slo=["q99 < 1s"])


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """RLIMIT_FSIZE stands for a disk that fills up: a write that does not fit is taken back."""
    file = AppendFile(tmp_path / "a")
    file.append(b"first\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        with pytest.raises(OutputError, match="cannot be written"):
            file.append(b"second\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    file.append(b"third\n")
    file.close()
    assert (tmp_path / "a").read_bytes() == b"first\nthird\n"


def test_accounts_that_do_not_balance_are_saved_and_make_the_run_invalid(tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].many(20)
    made.lanes[0].metrics.counters[C.sent] += 1
    document = made.recorder.finish(at_s(1))
    assert document.validity.verdict == "INVALID"
    assert document.validity.reasons[0].code == "UNBALANCED"
    assert there(document.latency.response).count == 20


KILLED = """
import sys, time
from pathlib import Path
from tests.support.metrics_data import at_s, trial
made = trial(Path(sys.argv[1]), lanes=2)
second = 0
print("ready", flush=True)
while True:
    for lane in made.lanes:
        lane.many(20, seed=second)
        lane.request(1, "reset")
    second += 1
    made.recorder.tick(at_s(second))
    print(42 * second, flush=True)
"""


@pytest.mark.parametrize("after_s", [0.02, 0.11, 0.3])
def test_a_killed_run_is_rebuilt_to_the_last_request(tmp_path, after_s):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert there(process.stdout).readline() == "ready\n"
        with pytest.raises(InputError, match="still being written"):
            load_run(tmp_path / "run")
        time.sleep(after_s)
        process.kill()
        said = there(process.stdout).read().split()
    ticked = int(said[-1]) if said else 0
    run = load_run(tmp_path / "run")
    assert run.recovered and run.document.interrupted
    assert run.document.ending.how == "killed"
    accounts = run.document.accounts
    assert accounts.planned == accounts.sent + accounts.unsent
    assert accounts.sent == accounts.ok + accounts.error + accounts.timeout + accounts.in_flight
    assert accounts.ok + accounts.error >= ticked
    totals = hlog.read_hlog(run.folder.totals)
    assert not totals.problems
    count = totals.by_tag()["response.all"].count
    assert accounts.ok + accounts.error - 2 <= count <= accounts.ok + accounts.error
    if ticked:
        intervals = hlog.read_hlog(run.folder.latency)
        assert not intervals.problems
        assert intervals.by_tag()["response.all"].count >= ticked
    assert not load_run(tmp_path / "run").recovered


def test_a_line_that_was_cut_short_is_removed(tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].many(10)
    made.recorder.tick(at_s(1))
    made.recorder.close()
    for path in (made.folder.latency, made.folder.timeline):
        with path.open("ab") as file:
            file.write(b"Tag=response.all,1.000,1.0")
    run = load_run(tmp_path / "run")
    assert not hlog.read_hlog(run.folder.latency).problems
    assert len(run.seconds()) == 1


def test_a_run_killed_before_its_lanes_began_says_so(tmp_path):
    made = trial(tmp_path / "run")
    made.recorder.close()
    made.folder.lane(0).unlink()
    with pytest.raises(InputError, match="before its lanes began"):
        load_run(tmp_path / "run")
    (tmp_path / "run" / "started.json").write_text('{"format_version": 99}')
    with pytest.raises(InputError, match="format version 99"):
        load_run(tmp_path / "run")
    (tmp_path / "run" / "started.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        load_run(tmp_path / "run")


def test_no_room_for_the_end_keeps_the_lanes_memory(tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].many(10)
    (tmp_path / "run" / "totals.hlog").mkdir()
    with pytest.raises(OutputError, match=r"totals\.hlog cannot be written"):
        made.recorder.finish(at_s(1))
    made.recorder.close()
    (tmp_path / "run" / "totals.hlog").rmdir()
    run = load_run(tmp_path / "run")
    assert run.recovered and run.document.accounts.ok == 10


def test_an_interrupted_run_says_so(tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].many(10)
    made.lanes[0].unsent(reason="interrupted")
    document = made.recorder.finish(at_s(1), ending=Ending(how="interrupted", detail="SIGINT", at_s=1.0))
    assert document.interrupted
    assert document.accounts_detail.unsent["interrupted"] == 1
    assert msgspec.json.decode(msgspec.json.encode(document), type=RunDocument) == document


def test_a_clock_that_does_not_move_makes_no_empty_or_negative_interval(tmp_path):
    made = trial(tmp_path / "run")
    rows = [made.recorder.tick(at_s(second)) for second in (-1, 0, 0, 1, 1)]
    assert all(row.length_s > 0 for row in rows)
    made.recorder.finish(at_s(1))
    assert all(i.length_s > 0 for i in hlog.read_hlog(made.folder.latency).intervals)


def test_an_empty_histogram_is_a_line_as_well(tmp_path):
    made = trial(tmp_path / "run")
    made.recorder.tick(at_s(1))
    document = made.recorder.finish(at_s(2))
    assert document.validity.verdict == "INVALID"
    assert document.latency.service.count == 0
    assert hlog.read_hlog(made.folder.totals).by_tag()["response.all"].count == empty(NS_3).count == 0


def test_a_tail_that_is_the_generators_own_is_a_note(tmp_path):
    made = trial(tmp_path / "run")
    for at in range(1_000):
        made.lanes[0].request(late_ms=3.0 if at % 50 == 0 else 0.01, service_ms=0.5)
    document = made.recorder.finish(at_s(1))
    assert [note.code for note in document.notes] == ["TAIL_IS_OURS"]
    assert document.validity.verdict == "VALID"
