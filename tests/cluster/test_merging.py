"""Merging, on folders whose lanes were filled by hand: sums, lost agents, and input that does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.cli import invoke
from replay.cluster.endings import NOT_KNOWN, Cause
from replay.cluster.merging import merge_runs
from replay.cluster.share import LostAgent, Share, ShareClock, read_share, write_share
from replay.errors import InputError, OutputError
from replay.results.document import Ending, RouteStart, RunDocument
from replay.results.hlog import read_hlog
from replay.results.run import load_run
from tests.support.metrics_data import START, S, at_s, trial

WHOLE = 300


def share(agent: int, agents: int, planned: int, **more: Any) -> Share:
    given: dict[str, Any] = {
        "run_id": "r", "epoch": "e", "agent": agent, "agents": agents, "host": f"h{agent}", "pid": 7 + agent,
        "first_lane": agent, "after_lane": agent + 1, "of_lanes": agents, "planned": planned,
        "planned_whole": WHOLE, "instant_ns": START.monotonic_ns, "start_ns": START.monotonic_ns,
    }  # fmt: skip
    return Share(**(given | more))


def agent_folder(
    path: Path,
    agent: int,
    agents: int,
    count: int,
    *,
    killed: bool = False,
    ending: Ending | None = None,
    **more: Any,
) -> Path:
    """The folder of an agent whose lane had so many requests."""
    made = trial(path)
    write_share(path, share(agent, agents, **({"planned": count} | more)))
    made.lanes[0].many(count, seed=agent + 1)
    made.recorder.tick(at_s(1))
    if killed:
        made.recorder.close()
    else:
        made.recorder.finish(at_s(2), ending=ending)
    return path


def three(folder: Path) -> list[Path]:
    return [agent_folder(folder / f"a{n}", n, 3, WHOLE // 3) for n in range(3)]


def changed(path: Path, **changes: Any) -> None:
    write_share(path, msgspec.structs.replace(read_share(path), **changes))


def balances(document: RunDocument) -> bool:
    a = document.accounts
    sums = {
        name: sum(getattr(agent.accounts, name) or 0 for agent in document.agents)
        for name in ("planned", "sent", "ok", "unsent", "unknown")
    }
    assert all(getattr(a, name) == count for name, count in sums.items()), sums
    return (
        a.planned == a.sent + a.unsent + (a.unknown or 0)
        and a.sent == a.ok + a.error + a.timeout + a.in_flight
    )


def test_the_order_of_the_folders_does_not_matter(tmp_path):
    parts = three(tmp_path)
    merge_runs(parts, tmp_path / "one")
    merge_runs(parts[::-1], tmp_path / "two")
    for name in ("run.json", "totals.hlog", "latency.hlog", "timeline.jsonl", "samples.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_merging_leaves_the_parts_as_they_were(tmp_path):
    parts = three(tmp_path)
    before = {path: path.read_bytes() for part in parts for path in part.rglob("*") if path.is_file()}
    merge_runs(parts, tmp_path / "whole")
    assert before == {path: path.read_bytes() for part in parts for path in part.rglob("*") if path.is_file()}
    assert not (tmp_path / "whole" / "lanes").exists()


@settings(max_examples=15)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=5))
def test_merged_counts_are_sums_for_any_shares(tmp_path_factory, counts):
    folder = tmp_path_factory.mktemp("merge")
    parts = [
        agent_folder(folder / f"a{n}", n, len(counts), count, planned_whole=sum(counts))
        for n, count in enumerate(counts)
    ]
    document = merge_runs(parts, folder / "whole")
    assert balances(document) and document.accounts.sent == sum(counts)
    for name in ("totals.hlog", "latency.hlog"):
        merged = read_hlog(folder / "whole" / name).by_tag()
        each = [read_hlog(part / name).by_tag() for part in parts]
        for tag, histogram in merged.items():
            expected = sum(one[tag].counts for one in each if tag in one)
            assert np.array_equal(histogram.counts, expected), (name, tag)
    assert sum(route.count for route in document.routes) == sum(counts)


def test_a_later_clock_moves_an_agents_seconds(tmp_path):
    parts = [agent_folder(tmp_path / f"a{n}", n, 2, 150) for n in range(2)]
    clock = ShareClock(offset_ns=-3 * S, bound_ns=1_000)
    changed(parts[1], clock=clock)
    document = merge_runs(parts, tmp_path / "whole")
    assert document.agents[1].start_error_ns == 3 * S
    rows = load_run(tmp_path / "whole").seconds()
    assert sum(row.ok for row in rows) == WHOLE
    assert [round(row.t_s) for row in rows] == [0, 1, 2, 4]
    assert rows[-1].t_s + rows[-1].length_s == pytest.approx(5, abs=0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"run_id": "other"}, "run id"),
        ({"epoch": "f"}, "epoch"),
        ({"agents": 4}, "number of agents"),
        ({"instant_ns": 5}, "instant"),
        ({"first_lane": 0, "after_lane": 1}, "overlap"),
        ({"agent": 0}, "both belong to agent 0"),
        ({"after_lane": 9}, "damaged"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_folders_that_do_not_belong_together_are_refused_by_name(tmp_path, capsys, change, words):
    parts = three(tmp_path)
    changed(parts[1], **change)
    assert invoke(["merge", *map(str, parts), "-o", str(tmp_path / "whole")]) == 2
    said = capsys.readouterr().err
    assert words in said and "a1" in said and "Traceback" not in said
    assert not (tmp_path / "whole").exists()


def test_a_run_of_another_trace_or_scenario_is_refused(tmp_path):
    parts = three(tmp_path)
    path = parts[2] / "started.json"
    started = json.loads(path.read_text())
    path.write_text(json.dumps(started | {"routes": [*started["routes"][:2], {"name": "GET /other"}]}))
    with pytest.raises(InputError, match="routes"):
        merge_runs(parts, tmp_path / "whole")
    path.write_text(json.dumps(started | {"scenario": {"speed": 2, "connections": 5}}))
    with pytest.raises(InputError, match="scenarios differ in speed"):
        merge_runs(parts, tmp_path / "whole")


@pytest.mark.parametrize(
    "damage",
    [
        lambda part: (part / "share.json").unlink(),
        lambda part: (part / "share.json").write_text("{"),
        lambda part: (part / "started.json").write_text("[]"),
        lambda part: (part / "started.json").unlink(),
        lambda part: (part / "run.json").write_text("{}"),
        lambda part: shutil.rmtree(part / "lanes"),
        lambda part: (part / "lanes" / "0.lane").write_bytes(b"short"),
        shutil.rmtree,
    ],
)
def test_a_damaged_part_is_a_sentence_with_its_name(tmp_path, capsys, damage):
    parts = three(tmp_path)
    damage(parts[1])
    assert invoke(["merge", *map(str, parts), "-o", str(tmp_path / "whole")]) == 2
    said = capsys.readouterr().err
    assert "a1" in said and "Traceback" not in said
    assert not (tmp_path / "whole").exists()


def test_a_result_is_never_overwritten(tmp_path):
    parts = three(tmp_path)
    (tmp_path / "whole").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        merge_runs(parts, tmp_path / "whole")


def test_one_folder_twice_is_refused(tmp_path):
    parts = three(tmp_path)
    with pytest.raises(InputError, match="given twice"):
        merge_runs([*parts, parts[0]], tmp_path / "whole")


def test_a_share_of_which_there_is_no_folder_is_unknown(tmp_path, capsys):
    parts = three(tmp_path)
    document = merge_runs(parts[:2], tmp_path / "whole")
    assert balances(document) and document.accounts.unknown == 100
    assert document.validity.verdict == "SUSPECT" and document.validity.reasons[0].code == "AGENT_LOST"
    assert [bool(agent.lost) for agent in document.agents] == [False, False, True]
    assert invoke(["report", str(tmp_path / "whole")]) == 0
    assert "unknown 100" in capsys.readouterr().out


def test_a_killed_agent_keeps_its_counts_and_the_rest_of_its_share_is_unsent(tmp_path):
    parts = [
        agent_folder(tmp_path / "a0", 0, 2, 150),
        agent_folder(tmp_path / "a1", 1, 2, 40, killed=True, planned=150),
    ]
    document = merge_runs(parts, tmp_path / "whole")
    assert balances(document) and document.accounts.sent == 190
    assert document.accounts_detail.unsent["agent_lost"] == 110
    assert document.ending.how == "whole" and document.validity.verdict == "SUSPECT"
    assert "agent 1 (h1)" in document.validity.reasons[0].message


def test_an_agent_that_died_before_it_began_sent_nothing(tmp_path):
    parts = [agent_folder(tmp_path / "a0", 0, 2, 150)]
    (tmp_path / "a1").mkdir()
    write_share(tmp_path / "a1", share(1, 2, 150))
    document = merge_runs([*parts, tmp_path / "a1"], tmp_path / "whole")
    assert balances(document)
    assert (document.accounts.unknown, document.accounts_detail.unsent["agent_lost"]) == (0, 150)


def test_reports_of_an_agent_whose_folder_is_lost_are_in_the_sums(tmp_path):
    parts = [agent_folder(tmp_path / "a0", 0, 2, 150)]
    counters = {"planned": 60, "sent": 60, "ok": 58, "outcome_2xx": 58}
    lost = LostAgent(
        agent=1, why="its connection ended", host="h1", planned=150, unknown=20, counters=counters,
        routes={"GET /users/{id}": {"2xx": 58}},
        histograms={
            "response.all": ([1000, 1001], [50, 8]),
            "response.2xx.GET_/users/{id}": ([700], [58]),
        },
    )  # fmt: skip
    document = merge_runs(parts, tmp_path / "whole", lost=[lost])
    a = document.accounts
    assert balances(document)
    assert (a.planned, a.sent, a.in_flight, a.unknown) == (300, 210, 2, 20)
    assert document.accounts_detail.unsent["agent_lost"] == 70
    totals = read_hlog(tmp_path / "whole" / "totals.hlog").by_tag()
    assert totals["response.all"].count == 208
    assert any(note.code == "REPORTS_ONLY" and "h1" in note.message for note in document.notes)
    assert document.agents[1].reported_only


def test_a_damaged_folder_of_a_lost_agent_does_not_lose_the_others(tmp_path):
    parts = three(tmp_path)
    shutil.rmtree(parts[1] / "lanes")
    lost = LostAgent(agent=1, why="its connection ended", host="h1", planned=100, unknown=100)
    document = merge_runs(parts, tmp_path / "whole", lost=[lost])
    assert balances(document) and (document.accounts.sent, document.accounts.unknown) == (200, 100)
    assert any("0.lane" in note.message or "lanes" in note.message for note in document.notes)


def test_one_starved_agent_is_named_and_the_whole_is_no_better(tmp_path):
    made = trial(tmp_path / "a0")
    write_share(tmp_path / "a0", share(0, 3, 100))
    made.lanes[0].many(100, late_ms=60.0)
    made.recorder.finish(at_s(2))
    parts = [tmp_path / "a0"] + [agent_folder(tmp_path / f"a{n}", n, 3, 100) for n in (1, 2)]
    verdict = load_run(tmp_path / "a0").document.validity
    assert verdict.verdict == "INVALID"
    whole = merge_runs(parts, tmp_path / "whole").validity
    assert whole.verdict == "INVALID" and "agent 0 (h0)" in whole.reasons[0].message


def test_an_empty_share_does_not_spoil_the_whole(tmp_path):
    made = trial(tmp_path / "a0")
    write_share(tmp_path / "a0", share(0, 3, 0, planned_whole=200))
    made.recorder.finish(at_s(2))
    parts = [agent_folder(tmp_path / f"a{n}", n, 3, 100, planned_whole=200) for n in (1, 2)]
    document = merge_runs([tmp_path / "a0", *parts], tmp_path / "whole")
    assert document.agents[0].validity.verdict == "INVALID"
    assert document.validity.verdict == "VALID", document.validity


def test_a_clock_that_is_known_less_exactly_than_the_lag_is_said(tmp_path):
    parts = three(tmp_path)
    changed(parts[1], clock=ShareClock(offset_ns=0, bound_ns=4_000_000))
    (reason,) = merge_runs(parts, tmp_path / "whole").validity.reasons
    assert reason.code == "CLOCK_UNCERTAIN" and "agent 1 (h1)" in reason.message
    assert "nearer to the agents" in reason.advice


@pytest.mark.parametrize(
    ("clock", "message", "advice"),
    [
        (ShareClock(bound_ns=50_000, drift_ppm=50_000.0), "drifted by +50000 ppm", "time synchronization"),
        (ShareClock(bound_ns=50_000, jumped_ns=-40_000_000), "set by 40 ms", "CLOCK_MONOTONIC jumped"),
    ],
)
def test_the_advice_about_a_clock_is_for_what_makes_it_uncertain(tmp_path, clock, message, advice):
    parts = three(tmp_path)
    changed(parts[1], clock=clock)
    (reason,) = merge_runs(parts, tmp_path / "whole").validity.reasons
    assert reason.code == "CLOCK_UNCERTAIN" and message in reason.message and advice in reason.advice


def test_folders_of_agents_that_ended_before_the_start_have_taken_no_time(tmp_path):
    parts = []
    for agent in range(2):
        made = trial(tmp_path / f"a{agent}")
        write_share(tmp_path / f"a{agent}", share(agent, 2, 150))
        made.recorder.finish(at_s(-0.377), ending=GONE)
        assert load_run(tmp_path / f"a{agent}").document.duration_s == 0
        parts.append(tmp_path / f"a{agent}")
    document = merge_runs(parts, tmp_path / "whole")
    assert (document.duration_s, document.accounts.planned, document.accounts.unsent) == (0, WHOLE, WHOLE)
    assert invoke(["report", str(tmp_path / "whole")]) == 0


GONE = Ending(how="interrupted", detail="the coordinator is gone", at_s=2.0)


@pytest.mark.parametrize(
    ("cause", "others", "how", "detail"),
    [
        (Cause("none"), Ending(), "whole", ""),
        (Cause("none"), GONE, "failed", "the coordinator is gone"),
        (Cause("stopped", "agent 1 was lost"), Ending(), "failed", "agent 1 was lost"),
        (Cause("interrupted", "SIGINT"), GONE, "interrupted", "SIGINT"),
        (NOT_KNOWN, Ending(), "failed", "agent 0 (h0): the coordinator is gone"),
        (
            Cause("interrupted", "SIGINT"),
            Ending(how="circuit_breaker", detail="too many failed"),
            "circuit_breaker",
            "agent 1 (h1): too many failed",
        ),
    ],
)
def test_the_ending_of_the_whole_says_what_ended_it(tmp_path, cause, others, how, detail):
    parts = [
        agent_folder(tmp_path / "a0", 0, 2, 90, planned=150, ending=GONE),
        agent_folder(tmp_path / "a1", 1, 2, 150, ending=others),
    ]
    document = merge_runs(parts, tmp_path / "whole", cause=cause)
    assert (document.ending.how, document.ending.detail) == (how, detail)
    assert balances(document) and document.accounts.planned == WHOLE
    assert document.accounts_detail.unsent["ended_early"] == document.accounts.unsent == 60
    codes = [reason.code for reason in document.validity.reasons]
    assert codes == (["AGENT_ENDED_EARLY"] if how == "whole" else [])


def test_a_share_without_a_folder_is_what_the_other_shares_leave(tmp_path):
    """A share whose agent died before it began is known: it is not part of what is unknown."""
    parts = [agent_folder(tmp_path / "a0", 0, 3, 100)]
    (tmp_path / "a1").mkdir()
    write_share(tmp_path / "a1", share(1, 3, 120))
    document = merge_runs([*parts, tmp_path / "a1"], tmp_path / "whole")
    assert balances(document) and document.accounts.planned == WHOLE
    assert (document.accounts.unknown, document.accounts_detail.unsent["agent_lost"]) == (80, 120)


@pytest.mark.parametrize(
    ("unsent", "unknown", "words"),
    [
        (1, 0, "1 request of its share was not sent. The target got 0.33% less than planned"),
        (0, 66, "it is not known whether 66 requests of its share were sent. The target got up to 22% less"),
        (4, 1, "4 requests of its share were not sent, and it is not known whether 1 more was sent. The target got up"),
        (0, 0, "every request of its share is accounted for"),
    ],
)  # fmt: skip
def test_the_words_for_a_lost_agent(tmp_path, unsent, unknown, words):
    parts = [agent_folder(tmp_path / "a0", 0, 2, WHOLE - unsent - unknown - 10)]
    lost = LostAgent(
        agent=1, why="gone", host="h1", planned=10 + unsent + unknown, unknown=unknown,
        counters={"planned": 10, "sent": 10, "ok": 10, "outcome_2xx": 10},
    )  # fmt: skip
    document = merge_runs(parts, tmp_path / "whole", lost=[lost])
    assert words in document.validity.reasons[0].message


def test_percentiles_of_a_merged_run_are_those_of_one_process(tmp_path):
    one = trial(tmp_path / "one")
    for seed in (1, 2, 3):
        one.lanes[0].many(100, seed=seed)
    alone = one.recorder.finish(at_s(2))
    whole = merge_runs(three(tmp_path), tmp_path / "whole")
    assert whole.latency.response == alone.latency.response
    assert whole.latency.service == alone.latency.service
    assert [(r.route, r.count, r.response) for r in whole.routes] == [
        (r.route, r.count, r.response) for r in alone.routes
    ]


def test_business_actions_of_all_agents_add_up(tmp_path):
    named = [RouteStart("POST /users", action="registration"), RouteStart("GET /"), RouteStart("GET /b")]
    parts = []
    for agent in range(2):
        path = tmp_path / f"a{agent}"
        made = trial(path, named=named, scenario={"values": {"registration": "9.99 EUR"}})
        write_share(path, share(agent, 2, planned=9, planned_whole=18))
        for second in range(3):
            made.lanes[0].request(0, "5xx", due_ms=second * 1e3)
            made.lanes[0].request(0, "2xx", due_ms=second * 1e3)
            made.lanes[0].unsent(0, "interrupted", due_ms=second * 1e3)
            made.recorder.tick(at_s(second + 1))
        made.recorder.finish(at_s(4))
        parts.append(path)
    business = merge_runs(parts, tmp_path / "whole").business
    assert business is not None
    (action,) = business.actions
    assert (action.requests, action.failed, action.not_of_target) == (18, 6, 6)
    assert business.lost == {"EUR": pytest.approx(59.94)}
    assert sum(interval.failed for interval in action.intervals) == 6
