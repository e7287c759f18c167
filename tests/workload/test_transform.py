"""Transforms: exact, seeded, written into the history; recorded burstiness does what the formulas say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replay.cli
from replay.errors import InputError, UsageError
from replay.plan.schedule import make_schedule
from replay.settings.file import load
from replay.settings.kinds import Scale
from replay.trace import Trace
from replay.units import format_moment
from replay.workload import steps
from replay.workload.fidelity import distance, measure
from replay.workload.transform import Transform, transform
from tests.support.trace_data import Row, write_trace
from tests.support.workload_data import (
    NS,
    SHARED,
    START_NS,
    azure,
    columns,
    fitness,
    route_rows,
)

TABLE = {
    "speed": {"0.1s": 5.29, "1s": 3.84, "10s": 1.35, "60s": 0.22},
    "scale": {"0.1s": 7.99, "1s": 4.99, "10s": 2.79, "60s": 1.08},
    "sample": {"0.1s": 6.01, "1s": 4.83, "10s": 2.69, "60s": 1.10},
    "repeat": {"0.1s": 9.41, "1s": 5.72, "10s": 3.34},
}
"""beta of the azure code trace by transform, k = 4."""

COMMANDS = {
    "speed": ["--speed", "4"],
    "scale": ["--scale", "4", "--rewrite", "^/ -> /moved/"],
    "sample": ["--sample", "25%"],
    "repeat": ["--scale", "4", "--grow", "repeat"],
}


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Run `replay` in this process: its exit code, and what it said."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = replay.cli.invoke([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def scaled(*rules: tuple[str, float]) -> Scale:
    return Scale(rules)


@pytest.mark.parametrize("name", TABLE)
def test_burstiness_of_a_recording_is_that_of_the_table(
    name: str, tmp_path: Path, command: Callable[..., Any]
) -> None:
    azure(tmp_path / "code.trace")
    code, _, said = command("transform", "code.trace", "-o", "out.trace", *COMMANDS[name])
    assert code == 0, said
    _, printed, _ = command("inspect", "out.trace", "--stats", "--against", "code.trace", "--json")
    stats = json.loads(printed)
    for window, beta in TABLE[name].items():
        low, high = stats["beta_interval"][window]
        assert low <= beta <= high
        if name != "repeat":
            assert stats["beta"][window] == pytest.approx(beta, rel=0.08)
    for window in ("1s", "10s", "60s"):
        assert stats["beta"][window] == pytest.approx(stats["beta_expected"][window], rel=0.07)
        assert stats["idc"][window] == pytest.approx(stats["idc_expected"][window], rel=0.07)


@pytest.mark.parametrize("flags", [["--scale", "4"], ["--scale", "4", "--grow", "repeat"]])
def test_growth_is_called_true_only_in_windows_where_it_is(
    flags: list[str], tmp_path: Path, command: Callable[..., Any]
) -> None:
    """A Poisson trace is Poisson no more when it has grown by its gaps; stamps that repeat are what their formula says."""
    assert command("generate", "-o", "p.trace", "-d", "30m", "--poisson", "20/s")[0] == 0
    assert command("transform", "p.trace", "-o", "out.trace", *flags)[0] == 0
    words = ("inspect", "out.trace", "--stats", "--against", "p.trace")
    stats = json.loads(command(*words, "--json")[1])
    judged = {window: off for window, off in stats["idc_off"].items() if off is not None}
    assert len(judged) >= 4 and stats["true_within"] == 0.1
    for window, off in judged.items():
        should_be = stats["idc_expected"][window]
        assert off == pytest.approx((stats["idc"][window] - should_be) / abs(should_be))
        assert stats["true"][window] == (abs(off) <= 0.1)
    printed = " ".join(command(*words)[1].split())
    repeated = "repeat" in flags
    assert stats["true"]["1s"] is repeated and "off beta should be" in printed
    assert ("1 s (+" in printed) is not repeated
    assert "IDC within 10% of the expected value" in printed


def test_a_recording_that_grew_by_three_is_not_called_true_where_it_is_off(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    log = SHARED / "nasa-http-1995-08-01.log"
    if not log.exists():
        pytest.skip(f"{log.name} is not there")
    assert command("import", log, "-o", "nasa.trace")[0] == 0
    assert command("transform", "nasa.trace", "-o", "nasa3.trace", "--scale", "3")[0] == 0
    _, printed, _ = command("inspect", "nasa3.trace", "--stats", "--against", "nasa.trace")
    line = " ".join(printed.split())
    assert "in windows of 60 s; not of 1 s (+40%), 10 s (+14%)" in line


def test_scaling_and_then_sampling_gives_the_recording_back(tmp_path: Path) -> None:
    trace = azure(tmp_path / "code.trace")
    more = transform(trace, tmp_path / "more.trace", Transform(scale=scaled(("", 4))))
    back = transform(more, tmp_path / "back.trace", Transform(sample=0.25))
    figures = measure(back).dispersion
    for window, beta in {"1s": 5.07, "10s": 2.79, "60s": 1.11}.items():
        found = figures[window]
        assert found is not None and found.beta == pytest.approx(beta, rel=0.05)


def test_gaps_are_as_far_apart_as_measured_elsewhere(tmp_path: Path) -> None:
    trace = azure(tmp_path / "code.trace")
    for number, (wanted, apart) in enumerate(
        [
            (Transform(speed=4.0), 0.002),
            (Transform(scale=scaled(("", 4))), 0.15),
            (Transform(sample=0.25), 0.22),
        ]
    ):
        made = transform(trace, tmp_path / f"{number}.trace", wanted)
        assert distance(measure(made), measure(trace)).gaps_ks == pytest.approx(apart, abs=0.02)


def test_routes_grow_by_exactly_their_factors_and_the_rest_stays_to_the_event(tmp_path: Path) -> None:
    trace = fitness(tmp_path / "in.trace")
    rules = scaled(("POST /v1/users", 5), ("* /v1/training/*", 2))
    grown = transform(trace, tmp_path / "out.trace", Transform(scale=rules))
    before, after = route_rows(trace), route_rows(grown)
    factors = {"POST /v1/users": 5, "GET /v1/training/plans": 2, "PUT /v1/training/sessions/{id}": 2}
    assert after == {route: rows * factors.get(route, 1) for route, rows in before.items()}
    old, new = columns(trace), columns(grown)
    for number, name in enumerate(trace.requests.routes):
        if name not in factors:
            ids = [i for i in range(trace.requests.rows) if trace.requests.get(i).route == number]
            for column in ("at_ns", "request"):
                kept = [each[column][np.isin(each["request"], ids)].tolist() for each in (old, new)]
                assert kept[0] == kept[1]
    assert set(zip(old["at_ns"], old["request"], strict=True)) <= set(
        zip(new["at_ns"], new["request"], strict=True)
    )


@pytest.mark.parametrize("factor", [0.37, 1.5, 3.14])
def test_a_fraction_is_exact_as_well(factor: float, tmp_path: Path) -> None:
    trace = fitness(tmp_path / "in.trace")
    grown = transform(trace, tmp_path / "out.trace", Transform(scale=scaled(("", factor))))
    assert grown.rows == round(trace.rows * factor)
    before, after = route_rows(trace), route_rows(grown)
    assert all(abs(after.get(route, 0) - rows * factor) < 1 for route, rows in before.items())


def test_whole_sessions_grow_with_their_order_and_pauses(tmp_path: Path) -> None:
    trace = fitness(tmp_path / "in.trace")
    wanted = Transform(scale=scaled(("POST /v1/users", 5), ("PUT /v1/training/*", 2)), grow="sessions")
    grown = transform(trace, tmp_path / "out.trace", wanted)
    before, after = route_rows(trace), route_rows(grown)
    assert after["POST /v1/users"] == 5 * before["POST /v1/users"]
    assert after["GET /register"] == 5 * before["GET /register"]
    assert after["PUT /v1/training/sessions/{id}"] == 2 * before["PUT /v1/training/sessions/{id}"]
    assert grown.manifest.clients == 5 * 60 + 2 * 240

    def sessions(trace: Trace) -> list[tuple[tuple[int, int], ...]]:
        """What each client did, with the time since its first request."""
        rows = columns(trace)
        done: dict[int, list[tuple[int, int]]] = {}
        for at_ns, request, client in zip(rows["at_ns"], rows["request"], rows["client"], strict=True):
            done.setdefault(int(client), []).append((int(at_ns), int(request)))
        return [tuple((at - did[0][0], request) for at, request in did) for did in done.values()]

    originals = sessions(trace)
    copies = sessions(grown)
    assert set(copies) == set(originals)
    assert sorted(copies.count(each) for each in originals) == [2] * 240 + [5] * 60


def test_the_same_seed_gives_the_same_trace_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = fitness(tmp_path / "in.trace")
    for grow in ("requests", "sessions"):
        made = []
        for rows in (1 << 20, 100, 16):
            monkeypatch.setattr(steps, "OUTPUT_ROWS", rows)
            monkeypatch.setattr("replay.workload.sessions.OUTPUT_ROWS", rows)
            wanted = Transform(sample=0.8, scale=scaled(("", 2.5)), speed=3.0, seed=7, grow=grow)  # type: ignore[arg-type]
            made.append(transform(trace, tmp_path / f"{grow}-{rows}.trace", wanted))
        for name, column in columns(made[0]).items():
            assert all(np.array_equal(column, columns(other)[name]) for other in made[1:])
        other = transform(trace, tmp_path / f"{grow}-x.trace", Transform(sample=0.8, seed=8))
        assert not np.array_equal(columns(made[0])["at_ns"], columns(other)["at_ns"])
        assert len({each.digest for each in made}) == 1


def test_a_sample_of_clients_keeps_all_they_did(tmp_path: Path) -> None:
    trace = fitness(tmp_path / "in.trace")
    part = transform(trace, tmp_path / "out.trace", Transform(sample=0.3, sample_by="client"))
    assert np.bincount(columns(part)["client"]).tolist() == [3] * part.manifest.clients
    assert 60 < part.manifest.clients < 120


def test_steps_are_in_the_history_and_the_window_is_what_is_left(tmp_path: Path) -> None:
    trace = fitness(tmp_path / "in.trace")
    until_ns = START_NS + 900 * NS
    wanted = Transform(
        from_ns=START_NS,
        until_ns=until_ns,
        without=("GET /register",),
        compress_to_ns=60 * NS,
        peak_per_s=2.0,
    )
    made = transform(trace, tmp_path / "out.trace", wanted)
    assert [step["transform"] for step in made.manifest.history] == ["window", "without", "scale", "speed"]
    assert "GET /register" not in {route for route, rows in route_rows(made).items() if rows}
    assert made.end_ns - made.start_ns == pytest.approx(60 * NS, rel=1e-6)
    assert made.rows == pytest.approx(2.0 * 60, abs=2)


def test_the_history_is_told_in_words(tmp_path: Path, command: Callable[..., Any]) -> None:
    fitness(tmp_path / "in.trace")
    flags = (
        "--until",
        "+10m",
        "--scale",
        "POST /v1/users=5",
        "--scale",
        "GET /*=2",
        "--speed",
        "4",
        "--sample",
        "50%",
    )
    _, printed, _ = command("transform", "in.trace", "-o", "out.trace", *flags)
    made = Trace.open(tmp_path / "out.trace")
    told = [
        ("window", f"until {format_moment(made.manifest.history[0]['until_ns'])}"),
        ("sample", "50%, by request, seed 1"),
        ("scale", "POST /v1/users=5, GET /*=2, seed 1, grow requests"),
        ("speed", "4.00 times"),
    ]
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert all(f"{name} {words}" in lines for name, words in told), printed
    _, inspected, _ = command("inspect", "out.trace")
    assert all(f"{name}: {words}" in inspected for name, words in told), inspected


def test_targets_are_rewritten_and_their_actions_stay(tmp_path: Path, command: Callable[..., Any]) -> None:
    trace = fitness(tmp_path / "in.trace")
    rules = ("--rewrite", "^/v1/ -> /v2/", "--rewrite", r"sessions/(\d+) -> workouts/\1")
    code, _, said = command("transform", "in.trace", "-o", "out.trace", "--scale", "POST /v1/users=2", *rules)
    assert code == 0, said
    made = Trace.open(tmp_path / "out.trace")
    before, after = route_rows(trace), route_rows(made)
    assert after["POST /v2/users"] == 2 * before["POST /v1/users"]
    assert after["PUT /v2/training/workouts/{id}"] == before["PUT /v1/training/sessions/{id}"]
    assert after["GET /register"] == before["GET /register"] and sum(after.values()) == made.rows
    assert made.manifest.history[-1] == {"transform": "rewrite", "rules": list(rules[1::2])}
    assert route_rows(trace) == before
    stamps = columns(made)["at_ns"]
    assert set(columns(trace)["at_ns"]) <= set(stamps)


def test_rewritten_routes_are_compared_with_what_their_requests_were(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    targets = [b"/a"] * 5 + [b"/b/1"] * 4 + [b"/c"] * 3
    write_trace(tmp_path / "in.trace", [Row(n * NS, target=target) for n, target in enumerate(targets)])
    flags = ("--scale", "GET /c=10", "--rewrite", "^/[bc].* -> /d", "--force")
    for out in ("out.trace", "in.trace"):
        code, said, error = command("transform", "in.trace", "-o", out, *flags)
        table = [line.split() for line in said.partition("route")[2].splitlines() if line.strip()]
        assert code == 0, error
        assert table == [["7", "34", "4.86", "GET", "/d"], ["5", "5", "1.00", "GET", "/a"]]


def test_rewritten_routes_keep_their_business_actions(tmp_path: Path, command: Callable[..., Any]) -> None:
    (tmp_path / "in.log").write_text(
        "".join(
            f'10.0.0.{n} - - [16/Mar/2020:10:00:{n:02} +0000] "{what} HTTP/1.1" 200 5 "-" "-"\n'
            for n, what in enumerate(["POST /v1/users", "GET /v1/plans/7", "POST /v1/users"] * 9)
        )
    )
    (tmp_path / "rules.toml").write_text('[actions]\nregistration = ["POST /v1/users"]\n')
    assert command("import", "in.log", "-o", "in.trace", "--routes", "rules.toml")[0] == 0
    flags = ("--scale", "registration=5", "--rewrite", "^/v1/ -> /api/v9/")
    code, _, said = command("transform", "in.trace", "-o", "out.trace", *flags)
    assert code == 0, said
    found = {
        route.route: (route.rows, route.action)
        for route in Trace.open(tmp_path / "out.trace").manifest.routes
    }
    assert found == {"POST /api/v9/users": (90, "registration"), "GET /api/v9/plans/{id}": (9, "")}


def test_a_run_has_the_peak_the_length_and_the_targets_asked_for(tmp_path: Path) -> None:
    trace = fitness(tmp_path / "in.trace")
    flags = {
        "target": "http://127.0.0.1:1", "methods": "all", "empty_bodies": True, "peak": "5/s",
        "compress_to": "2m", "rewrite": ["^/v1/ -> /v2/"],
    }  # fmt: skip
    schedule = make_schedule(trace, load(None, flags), area=tmp_path)
    due = np.concatenate([batch.due_ns for batch in schedule.batches()])
    assert due[-1] == pytest.approx(120 * NS, rel=0.01)
    running = np.concatenate([[0], np.cumsum(np.bincount(due // NS))])
    assert (running[60:] - running[:-60]).max() / 60 == pytest.approx(5.0, rel=0.02)
    assert "POST /v2/users" in {route.route for route in schedule.plan.by_route}
    assert "in 2 m" in schedule.plan.pace and "busiest minute of 5.00/s" in schedule.plan.pace


def test_a_run_replays_what_its_scenario_scales(tmp_path: Path) -> None:
    trace = fitness(tmp_path / "in.trace")
    flags = {
        "target": "http://127.0.0.1:1", "methods": "all", "empty_bodies": True, "scale": ["POST /v1/users=5"],
        "window.from": "+10m", "window.until": "+10m",
    }  # fmt: skip
    schedule = make_schedule(trace, load(None, flags), area=tmp_path)
    inside = columns(trace)["at_ns"]
    inside = inside[(inside >= trace.start_ns + 600 * NS) & (inside < trace.start_ns + 1_200 * NS)]
    routes = {route.route: route.rows for route in schedule.plan.by_route}
    assert schedule.recorded_origin_ns == trace.start_ns + 600 * NS
    assert schedule.plan.rows == len(inside) + routes["POST /v1/users"] * 4 // 5
    due = np.concatenate([batch.due_ns for batch in schedule.batches()])
    assert due.min() >= 0 and due.max() < 600 * NS
    assert set((inside - schedule.recorded_origin_ns).tolist()) <= set(due.tolist())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scale", "POST /v1/user=5"], ["'POST /v1/user' is not a route", "POST /v1/users"]),
        (["--scale", "-2"], ["--scale", "'-2' is not a factor"]),
        (["--scale", "nan"], ["'nan' is not a factor"]),
        (["--scale", "=3"], ["--scale", "'=3' names no route"]),
        (["--scale", "20000"], ["at most 10,000"]),
        (["--scale", "GET /register=2", "--scale", "3"], ["beside others"]),
        (["--scale", "GET /register=2", "--scale", "GET /register=3"], ["two factors"]),
        (["--scale", "*=2", "--scale", "GET /register=3"], ["GET /register=3 has no route left"]),
        (
            ["--grow", "sessions", "--scale", "0.5"],
            ["0.5 reduces the load", "--sample 50% --sample-by client"],
        ),
        (["--sample", "150%"], ["--sample", "between 0% and 100%"]),
        (["--sample", "0"], ["no request is left"]),
        (["--only", "GET /nothing"], ["--only", "not a route"]),
        (["--speed", "2", "--compress-to", "10m"], ["give one of them"]),
        (["--rewrite", "/v1/"], ["--rewrite", "'/v1/' is not a rule"]),
        (["--rewrite", "^/v1( -> /v2"], ["--rewrite", "missing )"]),
        (["--rewrite", r"^/v1 -> \2"], ["--rewrite", "invalid group reference"]),
        (["--rewrite", "^/v9/ -> /v2/"], ["matches no request"]),
        (["--rewrite", "^/ -> v2"], ["which is not a path"]),
        (["--peak", "max"], ["--peak"]),
        (["--peak", "-3/s"], ["--peak", "is not a rate"]),
        (["--speed", "-1"], ["--speed", "'-1' is not a factor"]),
        (["--compress-to", "0s"], ["--compress-to"]),
        (["--grow", "everything"], ["--grow", "'everything' is unknown"]),
        (["--seed", "one"], ["--seed", "'one' is not a whole number"]),
        (["--from", "2031-01-01T00:00"], ["holds nothing of the recording"]),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line_and_leaves_nothing(
    arguments: list[str], words: list[str], tmp_path: Path, command: Callable[..., Any]
) -> None:
    fitness(tmp_path / "in.trace", sessions=20)
    code, _, said = command("transform", "in.trace", "-o", "out.trace", *arguments)
    assert code == 2 and len(said.splitlines()) == 1
    assert all(word in said for word in words), said
    assert [path.name for path in tmp_path.iterdir()] == ["in.trace"]


def test_an_existing_trace_is_not_overwritten(tmp_path: Path, command: Callable[..., Any]) -> None:
    fitness(tmp_path / "in.trace", sessions=20)
    assert command("transform", "in.trace", "-o", "in.trace", "--speed", "2")[0] == 2
    assert Trace.open(tmp_path / "in.trace").rows == 60


def test_a_trace_is_replaced_by_what_is_made_of_it_where_that_is_forced(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    fitness(tmp_path / "in.trace", sessions=20)
    code, said, _ = command("transform", "in.trace", "-o", "in.trace", "--scale", "2", "--force")
    assert code == 0 and "120 made from 60" in said
    assert Trace.open(tmp_path / "in.trace").rows == 120


def test_the_peak_asked_for_is_the_one_that_is_shown(tmp_path: Path, command: Callable[..., Any]) -> None:
    azure(tmp_path / "code.trace")
    flags = ("--peak", "100/s", "--speed", "2", "--grow", "repeat")
    assert command("transform", "code.trace", "-o", "out.trace", *flags)[0] == 0
    rate = json.loads(command("inspect", "out.trace", "--json")[1])["rate"]
    assert rate["peak_60s"] == pytest.approx(100, rel=0.01)


def test_the_peak_is_that_of_all_of_a_minute_however_growing_mixes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = fitness(tmp_path / "in.trace")
    found = []
    for rows in (1 << 20, 20):
        monkeypatch.setattr(steps, "OUTPUT_ROWS", rows)
        wanted = Transform(scale=scaled(("POST /v1/users", 50)), peak_per_s=20.0)
        found.append(transform(trace, tmp_path / f"{rows}.trace", wanted).manifest.history[-1])
    assert found[0] == found[1]


def test_routes_are_shown_by_their_share_of_what_was_made(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    targets = [b"/%s" % (bytes([97 + n]) * 3) for n in range(20)]
    rows = [Row(n * 20 * NS + at, target=target) for n, target in enumerate(targets) for at in range(40 - n)]
    write_trace(tmp_path / "in.trace", sorted(rows))
    code, said, _ = command(
        "transform", "in.trace", "-o", "out.trace", "--scale", "GET /ttt=100", "--without", "GET /aaa"
    )
    assert code == 0 and said.split("route")[1].split()[:4] == ["21", "2,100", "100", "GET"]
    found = json.loads(command("inspect", "out.trace", "--json")[1])["routes"]
    code, said, _ = command("transform", "in.trace", "-o", "more.trace", "--scale", "GET /ttt=1.1")
    assert code == 0 and said.split("route")[1].split()[:4] == ["21", "23", "1.10", "GET"]
    assert found[0] == {"route": "GET /ttt", "rows": 2100} and found[-1] == {"route": "GET /aaa", "rows": 0}
    screen = command("inspect", "out.trace")[1]
    assert "2,100    GET /ttt" in screen and "0    GET /aaa" not in screen and "7 more routes" in screen


def test_sessions_are_at_once_where_they_are_and_not_where_they_are_near(tmp_path: Path) -> None:
    day_s, minute_s = 86_400, 60
    begins_s = [0, 5, 10, day_s // 2, day_s // 2 + 30, day_s - minute_s]
    ends_s = [4, 9, 14, day_s // 2 + minute_s, day_s // 2 + 90, day_s]
    stamps = sorted((at, client) for client, at in [*enumerate(begins_s), *enumerate(ends_s)])
    trace = write_trace(tmp_path / "day.trace", [Row(at * NS, client=client) for at, client in stamps])
    assert measure(trace).sessions_at_once == 2


def test_a_trace_too_short_for_a_window_says_nothing_of_it(tmp_path: Path) -> None:
    figures = measure(
        transform(fitness(tmp_path / "a.trace"), tmp_path / "b.trace", Transform(compress_to_ns=50 * NS))
    )
    assert figures.dispersion["60s"] is None and figures.dispersion["10s"] is None
    assert figures.dispersion["1s"] is not None


def test_a_coarse_recording_says_nothing_below_its_resolution(tmp_path: Path) -> None:
    trace = fitness(tmp_path / "a.trace")
    trace.manifest.resolution_ns = NS
    figures = measure(trace)
    assert figures.dispersion["0.1s"] is None and figures.dispersion["1s"] is not None
    assert figures.sessions == 300 and figures.requests_a_session == 3.0


def test_nothing_can_be_measured_of_an_empty_trace(tmp_path: Path) -> None:
    trace = fitness(tmp_path / "a.trace", sessions=2)
    trace.manifest.rows = 0
    with pytest.raises(InputError, match="holds no requests"):
        measure(trace)


def test_factors_are_read_from_numbers_and_rules() -> None:
    assert Scale.parse(4) == (("", 4.0),)
    assert Scale.parse(["POST /v1/users=5", "GET /x?a=b=200%"]) == (
        ("POST /v1/users", 5.0),
        ("GET /x?a=b", 2.0),
    )
    with pytest.raises(UsageError):
        Scale.parse("POST /v1/users=")
