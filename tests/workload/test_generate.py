"""Generated traces: the process asked for, the mix, sessions, seeds, and what a wrong recipe says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import replay.cli
from replay.errors import InputError, UsageError
from replay.trace import Trace
from replay.workload import curves, mmpp2
from replay.workload import generate as generating
from replay.workload.fidelity import dispersions, measure
from replay.workload.generate import Arrivals, generate
from replay.workload.recipe import Recipe
from tests.support.places import ROOT
from tests.support.workload_data import (
    NS,
    SHARED,
    azure,
    columns,
    fitness,
    route_rows,
)

RECIPES = ROOT / "traces"


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


def test_a_poisson_trace_is_poisson(tmp_path: Path, command: Callable[..., Any]) -> None:
    assert command("generate", "-o", "p.trace", "-d", "20m", "--poisson", "200/s", "--seed", "5")[0] == 0
    trace = Trace.open(tmp_path / "p.trace")
    assert trace.rows == pytest.approx(240_000, rel=0.01)
    _, printed, _ = command("inspect", "p.trace", "--stats", "--json")
    stats = json.loads(printed)
    for window in ("0.1s", "1s", "10s", "60s"):
        assert stats["idc"][window] == pytest.approx(1.0, abs=0.5)
    assert stats["gap_cv"] == pytest.approx(1.0, abs=0.02)


def test_an_even_trace_is_even(tmp_path: Path, command: Callable[..., Any]) -> None:
    assert command("generate", "-o", "e.trace", "-d", "60s", "--rate", "100/s")[0] == 0
    at_ns = columns(Trace.open(tmp_path / "e.trace"))["at_ns"]
    assert (at_ns - at_ns[0]).tolist() == [n * 10_000_000 for n in range(6_000)]


def test_rates_go_where_ramps_steps_and_shapes_say(tmp_path: Path) -> None:
    ramp = np.concatenate(list(Arrivals(curves.ramp(0.0, 200.0, 100 * NS), "even")))
    assert len(ramp) == 10_000
    assert np.searchsorted(ramp, 50 * NS) == pytest.approx(2_500, abs=1)
    steps = np.concatenate(list(Arrivals(curves.steps([10, 0, 50], 30 * NS), "even")))
    assert np.bincount(steps // (10 * NS)).tolist() == [100, 0, 500]
    week = curves.shape("week", 1.0, 14 * 86_400 * NS)
    assert week.requests == pytest.approx(14 * 86_400)
    assert week.edges_ns[-1] == 14 * 86_400 * NS
    for name in curves.SHAPES:
        squeezed = curves.shape(name, 50.0, 60 * NS)
        assert squeezed.length_ns == 60 * NS and squeezed.mean_per_s == pytest.approx(50.0)


def rushes(curve: curves.RateCurve) -> list[float]:
    """Hours at which a curve is at its highest: maxima of at least 90% of the highest rate."""
    edges, rates = curve.edges_ns[:-1] / (3_600 * NS), curve.rates[:, 0]
    high = np.flatnonzero(rates >= 0.9 * rates.max())
    starts = high[np.insert(np.diff(high) > 1, 0, True)]
    return [round(float(edges[start]), 1) for start in starts]


@pytest.mark.parametrize(
    ("hours", "count"), [(0.2, 1), (1, 1), (1.5, 1), (2, 1), (13, 1), (24, 1), (48, 2), (60, 2), (168, 7)]
)
def test_a_rush_hour_comes_once_a_day(hours: float, count: int) -> None:
    curve = curves.shape("6pm", 50.0, round(hours * 3_600 * NS))
    assert len(rushes(curve)) == count
    assert curve.length_ns == round(hours * 3_600 * NS) and curve.mean_per_s == pytest.approx(50.0)
    if hours >= 24:
        assert all(abs(at % 24 - 18) < 0.2 for at in rushes(curve))


def test_what_happens_once_is_not_repeated_in_a_longer_trace() -> None:
    hour, day = 3_600 * NS, 86_400 * NS

    def at(curve: curves.RateCurve, hours: float) -> float:
        return float(curve.rates[np.searchsorted(curve.edges_ns, round(hours * hour), side="right") - 1, 0])

    lockdown = curves.shape("lockdown", 1.0, 3 * day)
    assert at(lockdown, 24 + 8) == pytest.approx(at(lockdown, 8) * 2.3 / 1.1), "they are at home all day"
    assert at(lockdown, 24 + 12) == pytest.approx(at(lockdown, 12))
    monday = curves.shape("monday", 1.0, 14 * day)
    evenings = [at(monday, 24 * number + 18) for number in range(14)]
    assert [n for n, level in enumerate(evenings) if level > 0.95 * max(evenings)] == [0, 7]
    january = curves.shape("january", 1.0, 62 * day)
    noons = [at(january, 24 * number + 12) for number in range(62)]
    assert noons == sorted(noons, reverse=True)
    for name in curves.SHAPES:
        for length_ns in (day // 3, day - NS, day, day + NS, 40 * day + 7 * hour):
            curve = curves.shape(name, 3.0, length_ns)
            assert curve.length_ns == length_ns and curve.mean_per_s == pytest.approx(3.0), name


def test_a_curve_that_ends_before_the_duration_is_refused(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    (tmp_path / "c.csv").write_text("time,rate\n0,10\n30,20\n")
    code, _, said = command("generate", "-o", "x.trace", "--curve", "c.csv", "-d", "2m")
    assert code == 2 and "longer than the curve, which ends after" in said
    (tmp_path / "r.toml").write_text('duration = "50s"\n[curve]\ntimes = ["0s", "20s"]\nrates = [5, 5]\n')
    code, _, said = command("generate", "r.toml", "-o", "x.trace")
    assert code == 2 and "longer than the curve" in said
    assert command("generate", "-o", "y.trace", "--curve", "c.csv", "-d", "20s")[0] == 0
    trace = Trace.open(tmp_path / "y.trace")
    assert trace.end_ns - trace.start_ns < 20 * NS


def test_a_part_of_a_curve_is_that_part() -> None:
    whole = curves.points([0, 10 * NS, 20 * NS], [0.0, 100.0, 0.0], "here")
    part = whole.part(5 * NS, 15 * NS)
    assert part.edges_ns.tolist() == [0, 5 * NS, 10 * NS]
    assert part.rates.ravel().tolist() == pytest.approx([50, 100, 100, 50])


def test_the_world_cup_peak_generates_as_it_was_counted() -> None:
    source = SHARED / "worldcup98-per-minute.csv"
    if not source.exists():
        pytest.skip(f"{source.name} is not there")
    recorded = curves.read_curve(source)
    counts = recorded.curve.rates[:, 0] * np.diff(recorded.curve.edges_ns) / NS
    peak_ns = int(recorded.curve.edges_ns[counts.argmax()])
    day = recorded.curve.part(peak_ns - 43_200 * NS, peak_ns + 43_200 * NS)
    found = np.zeros(1_440, np.int64)
    for at_ns in Arrivals(day, "poisson", seed=3):
        found += np.bincount(at_ns // (60 * NS), minlength=1_440)
    assert recorded.curve.requests == pytest.approx(1_352_804_107)
    assert found.sum() == pytest.approx(day.requests, rel=0.001)
    expected = np.histogram(day.edges_ns[:-1] // (60 * NS), 1_440, (0, 1_440), weights=(
        day.rates[:, 0] * np.diff(day.edges_ns) / NS))[0]  # fmt: skip
    chi2 = float(((found - expected) ** 2 / expected).sum()) / 1_440
    assert 0.85 < chi2 < 1.15


def test_bursts_of_a_recording_are_fitted_and_come_again(tmp_path: Path) -> None:
    trace = azure(tmp_path / "code.trace")
    fitted = mmpp2.fit(trace)
    windows = {str(width): width * NS for width in mmpp2.FITTED_S}
    for each in dispersions(trace, windows).values():
        assert fitted.idc(each.window_ns / NS) == pytest.approx(each.idc, rel=0.15)
    chain = fitted.modulation()
    curve = curves.constant(fitted.mean_per_s, 400_000 * NS)
    at_ns = np.concatenate(list(Arrivals(curve, "poisson", chain=chain, seed=2)))
    assert len(at_ns) * NS / curve.length_ns == pytest.approx(fitted.mean_per_s, rel=0.05)
    for width in (1, 10, 60):
        counts = np.bincount(at_ns // (width * NS))
        assert counts.var() / counts.mean() == pytest.approx(fitted.idc(width), rel=0.15)


def test_bursts_that_no_such_process_has_are_said(tmp_path: Path, command: Callable[..., Any]) -> None:
    command("generate", "-o", "even.trace", "-d", "20m", "--rate", "10/s")
    code, _, said = command("generate", "-o", "x.trace", "-d", "60s", "--bursts-of", "even.trace")
    assert code == 2 and "index of dispersion (IDC) is" in said and "at 10 s" in said
    command("generate", "-o", "short.trace", "-d", "20s", "--poisson", "10/s")
    code, _, said = command("generate", "-o", "x.trace", "-d", "60s", "--bursts-of", "short.trace")
    assert code == 2 and "too short" in said


def test_requests_come_by_weight_and_popularity(tmp_path: Path, command: Callable[..., Any]) -> None:
    made = command(
        "generate",
        "-o",
        "m.trace",
        "-d",
        "100s",
        "--rate",
        "2000/s",
        "--mix",
        "GET /a=3",
        "--mix",
        "POST /b=1",
    )
    assert made[0] == 0
    rows = route_rows(Trace.open(tmp_path / "m.trace"))
    assert rows["GET /a"] == pytest.approx(150_000, rel=0.01)
    command("generate", "-o", "z.trace", "-d", "100s", "--rate", "2000/s", "--zipf", "500:1.1")
    figures = measure(Trace.open(tmp_path / "z.trace"))
    assert figures.zipf_exponent == pytest.approx(1.1, abs=0.1)


def test_a_mix_is_taken_from_a_trace(tmp_path: Path, command: Callable[..., Any]) -> None:
    trace = fitness(tmp_path / "in.trace")
    assert (
        command("generate", "-o", "m.trace", "-d", "100s", "--rate", "1000/s", "--mix-of", "in.trace")[0] == 0
    )
    made = Trace.open(tmp_path / "m.trace")
    for route, rows in route_rows(trace).items():
        assert route_rows(made)[route] / made.rows == pytest.approx(rows / trace.rows, rel=0.05)


def session_recipe(tmp_path: Path) -> Path:
    path = tmp_path / "app.toml"
    path.write_text(
        'duration = "1h"\nrate = "1/s"\nseed = 4\n'
        '[[session]]\nweight = 3\nstep = [{ path = "/login" }, { path = "/plan/{id}", ids = 9, pause = "20s" },'
        ' { path = "/plan/{id}/done", method = "PUT", ids = 9, pause = "5s", body = "{uuid}", status = 204 }]\n'
        '[[session]]\nstep = [{ path = "/offers" }]\n'
    )
    return path


def test_sessions_keep_their_steps_in_order_and_their_ids(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    assert command("generate", session_recipe(tmp_path), "-o", "s.trace")[0] == 0
    trace = Trace.open(tmp_path / "s.trace")
    rows, done = columns(trace), dict[int, list[bytes]]()
    for request, client in zip(rows["request"].tolist(), rows["client"].tolist(), strict=True):
        done.setdefault(client, []).append(trace.requests.get(request).target)
    kinds: Counter[str] = Counter()
    for steps in done.values():
        plan = [b"/login", *(f"/plan/{step.split(b'/')[2].decode()}".encode() for step in steps[1:2])]
        whole = [*plan, plan[-1] + b"/done"]
        assert steps in ([b"/offers"], whole[: len(steps)])
        kinds["offers" if steps == [b"/offers"] else "plan"] += 1
    assert kinds["plan"] / kinds["offers"] == pytest.approx(3, rel=0.15)
    assert sum(kinds.values()) == pytest.approx(3_600, rel=0.06)
    last = trace.requests.get(int(rows["request"][rows["status"] == 204][0]))
    assert len(trace.requests.body(last.body)) == 36


def test_the_same_seed_gives_the_same_trace_in_any_portions(
    tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = session_recipe(tmp_path)
    made = []
    for rows in (1 << 20, 1_000, 77):
        monkeypatch.setattr(generating, "BATCH_ROWS", rows)
        assert command("generate", recipe, "-o", f"{rows}.trace")[0] == 0
        made.append(Trace.open(tmp_path / f"{rows}.trace"))
    assert command("generate", recipe, "-o", "other.trace", "--seed", "5")[0] == 0
    for name, column in columns(made[0]).items():
        assert all(np.array_equal(column, columns(other)[name]) for other in made[1:])
    assert not np.array_equal(
        columns(made[0])["at_ns"], columns(Trace.open(tmp_path / "other.trace"))["at_ns"]
    )
    assert len({trace.digest for trace in made}) == 1


@pytest.mark.parametrize("name", ["week", "lockdown"])
def test_the_recipes_of_the_project_are_whole(name: str, command: Callable[..., Any], tmp_path: Path) -> None:
    assert command("generate", RECIPES / f"{name}.toml", "-o", "small.trace", "-d", "3h", "--force")[0] == 0
    routes = route_rows(Trace.open(tmp_path / "small.trace"))
    assert {"POST /v1/users", "PUT /v1/training/sessions/{id}", "POST /v1/payment/orders"} <= set(routes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no rate"]),
        (["--poisson", "10/s"], ["no duration", "-d 60s"]),
        (["-d", "60s", "--poisson", "-1"], ["--poisson", "'-1' is not a rate"]),
        (["-d", "60s", "--rate", "max"], ["max is not a rate"]),
        (["-d", "60s", "--rate", "1/s", "--poisson", "1/s"], ["--rate, --poisson contradict"]),
        (["-d", "60s", "--poisson", "5/s", "--shape", "weak"], ["'weak'", "did you mean week?"]),
        (["-d", "60s", "--gamma", "5/s", "--cv", "nan"], ["cv"]),
        (["-d", "60s", "--gamma", "5/s", "--cv", "-2"], ["--cv: expected a number above 0"]),
        (["-d", "60s", "--poisson", "5/s", "--cv", "2"], ["--cv needs gamma gaps", "--gamma RATE"]),
        (["-d", "60s", "--poisson", "5/s", "--from", "+10s"], ["--from needs --curve"]),
        (["-d", "0s", "--poisson", "5/s"], ["duration", "-d 60s"]),
        (
            ["-d", "60s", "--poisson", "5/s", "--clients", "0"],
            ["--clients: expected a whole number of at least 1"],
        ),
        (
            ["-d", "60s", "--poisson", "5/s", "--zipf", "9999999"],
            ["--zipf: expected a whole number of at most 1,000,000"],
        ),
        (["-d", "60s", "--poisson", "5/s", "--zipf", "0"], ["--zipf: expected a whole number of at least 1"]),
        (["-d", "60s", "--poisson", "5/s", "--mix", "GET /=-1"], ["--mix: expected a number of at least 0"]),
        (["-d", "60s", "--steps", "5,,5"], ["--steps: '' is not a rate"]),
        (
            ["-d", "60s", "--poisson", "5/s", "--start", "2290-01-01T00:00:00Z"],
            ["start: ", "between 1970 and 2261"],
        ),
        (
            ["-d", "60s", "--poisson", "5/s", "--start", "1969-12-31T23:59:59Z"],
            ["start: ", "between 1970 and 2261"],
        ),
        (["-d", "800d", "--poisson", "1/h", "--start", "2260-01-01T00:00:00Z"], ["start: ", "a shorter -d"]),
        (["-d", "60s", "--ramp", "5/s"], ["--ramp", "FROM:TO"]),
        (["-d", "60s", "--rate", "5/s", "--mix", "GET"], ["--mix", "METHOD /path"]),
        (["-d", "60s", "--rate", "5/s", "--mix", "GET items=2"], ["'items' is not a path"]),
        (["-d", "60s", "--rate", "5/s", "--mix", "GET /a=0"], ["every weight is 0"]),
        (["-d", "100y", "--rate", "900/s"], ["unit 'y' is unknown"]),
        (["-d", "300d", "--rate", "900000/s"], ["more than the limit of 2e+10"]),
        (["--curve", "none.csv"], ["none.csv: no such file"]),
        (["--mix-of", "none.trace", "-d", "1s", "--rate", "1/s"], ["no trace at none.trace"]),
    ],
)
def test_what_is_asked_for_wrongly_is_one_line_and_leaves_nothing(
    arguments: list[str], words: list[str], tmp_path: Path, command: Callable[..., Any]
) -> None:
    code, _, said = command("generate", "-o", "out.trace", *arguments)
    assert code == 2 and len(said.splitlines()) == 1, said
    assert all(word in said for word in words), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0,5\n10,7\n5,2\n", ["line 3", "not after"]),
        ("0,5\n10,-7\n", ["line 2", "not a rate"]),
        ("0,5\n10,nan\n", ["line 2", "not a rate"]),
        ("time,rate\n0,5\n", ["at least two rows"]),
        ("0,5\nten,5\n", ["line 2", "not a time and a number"]),
        ("0\n", ["line 1", "a time and a rate"]),
        ("1700000000000,5\n1700000001000,6\n", ["line 1", "not a time and a number"]),
        ("0,5\n1e300,5\n", ["line 2", "not a time and a number"]),
        ("nan,5\n1,5\n", ["line 1", "not a time and a number"]),
        ("2026-01-01,5\n9999-12-31,5\n", ["line 2", "not a time and a number"]),
    ],
)
def test_a_curve_says_which_line_is_wrong(text: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        curves.read_curve(path)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_recipe_says_which_key_is_wrong(tmp_path: Path, command: Callable[..., Any]) -> None:
    for text, words in (
        ('rat = "5/s"\n', ["recipe.toml, line 1: rat: there is no such setting", "did you mean rate?"]),
        ("rates = [5, 6]\n", ["line 1: rates: there is no such setting", "did you mean curve.rates?"]),
        ('duration = "1h"\n\nrate = "fast"\n', ["line 3: rate", "'fast' is not a rate"]),
        ('duration = "1h"\nprocess = "posson"\n', ["line 2: process", "did you mean poisson?"]),
        ('[curve]\ntimes = ["0s", "2s", "1s"]\nrates = [1, 2, 3]\n', ["time 3 is not after"]),
        ('[curve]\ntimes = ["0s", "2s"]\nrates = [1, -2]\n', ["rate 2 is -2"]),
        (
            '[[request]]\npath = "/"\nweigh = 1\n',
            ["line 3: request[0].weigh", "settings: path, method, weight"],
        ),
        (
            '[[request]]\npath = "/"\nids = 0\n',
            ["line 3: request[0].ids: expected a whole number of at least 1"],
        ),
        ("[[session]]\nstep = []\n", ["session[0].step: expected a list of at least 1"]),
        (
            "seed = 9223372036854775808\n",
            ["seed: expected a whole number of at most 9,223,372,036,854,775,807"],
        ),
        ("seed = 99999999999999999999999\n", ["line 1: seed: expected a whole number of at most"]),
        ("[curve]\nramp = [1]\n", ["line 2: curve.ramp: expected a list of 2"]),
    ):
        (tmp_path / "recipe.toml").write_text(text)
        code, _, said = command("generate", "recipe.toml", "-o", "out.trace")
        assert code == 2 and all(word in said for word in words), said


def test_a_recorded_curve_begins_when_it_was_recorded_or_as_it_is_told(
    tmp_path: Path, command: Callable[..., Any]
) -> None:
    (tmp_path / "curve.csv").write_text("time,rate\n2020-03-16T00:00:00Z,10\n2020-03-16T00:01:00Z,10\n")
    for flags, year in (((), "2020"), (("--start", "2024-01-01T00:00:00Z"), "2024")):
        code, said, error = command("generate", "-o", f"{year}.trace", "--curve", "curve.csv", *flags)
        assert code == 0 and f"{year}-" in said, error


@pytest.mark.parametrize("first_s", [-60, 0, 5])
@pytest.mark.parametrize("flags", [(), ("--from", "+10s")])
def test_a_curve_of_seconds_begins_where_every_trace_does(
    first_s: int, flags: tuple[str, ...], tmp_path: Path, command: Callable[..., Any]
) -> None:
    (tmp_path / "curve.csv").write_text(f"time,rate\n{first_s},10\n{first_s + 30},10\n")
    code, said, error = command("generate", "-o", "out.trace", "--curve", "curve.csv", *flags)
    assert code == 0 and "2026-01-05 00:00:00 UTC" in said, error


def test_nothing_arrives_at_a_rate_of_0(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing arrives"):
        generate(Recipe(curve=None, rate_per_s=0.0, duration_ns=10 * NS), tmp_path / "x.trace")  # type: ignore[arg-type]
