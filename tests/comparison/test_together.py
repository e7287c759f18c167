"""`replay ab --together`: pairs of runs at the same instants, restarted builds, and what that lets a verdict say."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replay.comparison.builds import Build
from replay.comparison.cores import physical_cores, two_shares, usable_cores
from replay.comparison.decision import Options
from replay.comparison.session import Plan, Session
from replay.comparison.set_aside import set_aside
from replay.comparison.sides import SideRun, load_run_folder
from replay.comparison.together import swaps
from replay.comparison.verdict import compare
from replay.errors import InputError, UsageError
from replay.results.document import ClockPair
from replay.settings.scenario import Scenario
from tests.support.compare_data import make_run, rewrite
from tests.support.metrics_data import START
from tests.support.places import ROOT
from tests.support.trace_data import Row, write_trace

SERVER = f"{sys.executable} {ROOT / 'tests' / 'support' / 'tiny_server.py'} {{port}}"
LINE = '192.0.2.1 - - [05/Jan/2026:18:00:{0:02} +0100] "{2} /users/{1} HTTP/1.1" 200 512\n'


def paired_runs(folder: Path, pairs: int, slower: float = 1.0) -> tuple[str, str]:
    """Runs of two builds in pairs, each of which shares a level of its own."""
    for at in range(pairs):
        level = 1.0 + 0.3 * (at % 3)
        for label, factor in (("base", 1.0), ("new", slower)):
            path = folder / label / f"{at:02}"
            start = ClockPair(START.monotonic_ns, START.wall_ns + at * 10**10)
            scale = dict.fromkeys((0, 1), level * factor)
            make_run(path, seed=2 * at + len(label), run_sd=0.0, slower=scale, start=start, together=f"t{at}")
    return f"base={folder / 'base'}", f"new={folder / 'new'}"


def test_each_build_is_first_equally_often_in_a_drawn_order():
    drawn = {tuple(swaps(6, seed)) for seed in range(40)}
    assert len(drawn) == 8 and all(sum(order) == 3 for order in drawn)
    assert swaps(7, 3)[:6] == swaps(6, 3)


def test_cores_are_shared_out_evenly_and_apart(monkeypatch):
    monkeypatch.setattr(
        "replay.comparison.cores.siblings_of", lambda core: frozenset({core % 4, core % 4 + 4})
    )
    assert two_shares([0, 4]) is None
    assert physical_cores([0, 4, 1]) == [{0, 4}, {1}]
    assert two_shares([0, 1]) == (frozenset({0}), frozenset({1}))
    assert two_shares(range(8)) == (frozenset({0, 4}), frozenset({1, 5}))
    monkeypatch.setattr("replay.comparison.cores.siblings_of", lambda core: frozenset({core}))
    for count in range(2, 20):
        one, two = two_shares(range(count)) or (frozenset(), frozenset())
        assert len(one) == len(two) >= 1 and not one & two and (len(one | two) < count or count == 2)


def test_a_build_and_its_children_run_on_their_cores(tmp_path):
    cores = usable_cores()
    log = tmp_path / "log"
    show = "grep Cpus_allowed_list /proc/self/status"
    with Build("base", f"{show}; exec {SERVER} 0").running(log, cores=cores[-1:]):
        assert log.read_text().split() == ["Cpus_allowed_list:", str(cores[-1])]
    assert usable_cores() == cores


def test_runs_at_the_same_instants_are_compared_in_pairs(tmp_path):
    sides = paired_runs(tmp_path, 6, slower=1.2)
    found = compare(*sides, Options(metrics=("p50",)))
    assert found.design == "together" and found.labellings == 64 and not found.reasons
    assert found.verdict == "REGRESSION" and found.exit_code == 99
    # Without pairing, the difference in level would hide the change.
    assert compare(*sides, Options(metrics=("p50",), design="labels")).verdict == "INCONCLUSIVE"


def test_five_pairs_are_too_few_and_a_verdict_says_how_many_are_enough(tmp_path):
    found = compare(*paired_runs(tmp_path, 5), Options(metrics=("p50",)))
    assert found.design == "together" and found.labellings == 32
    assert all(finding.runs_needed is None or finding.runs_needed >= 6 for finding in found.findings)


def test_pairs_of_which_one_run_is_missing_are_no_pairs(tmp_path):
    base, new = paired_runs(tmp_path, 7)
    shutil.rmtree(tmp_path / "base" / "02")
    shutil.rmtree(tmp_path / "new" / "04")
    assert compare(base, new, Options(metrics=("p50",))).design != "together"
    with pytest.raises(UsageError, match="not complete pairs"):
        compare(base, new, Options(design="together"))


def test_an_effect_of_two_processes_fails_only_where_asked(tmp_path):
    sides = paired_runs(tmp_path, 6, slower=1.2)
    asked = Options(metrics=("p50",), of_processes=True)
    assert compare(*sides, asked).verdict == "REGRESSION" and compare(*sides, asked).exit_code == 0
    effect = Options(metrics=("p50",), of_processes=True, fail_on=("regression", "effect"))
    assert compare(*sides, effect).exit_code == 99


def test_runs_that_were_set_aside_are_left_out_and_named(tmp_path):
    base, new = paired_runs(tmp_path, 7)
    for label in ("base", "new"):
        rewrite(tmp_path / label / "03", validity={"verdict": "INVALID", "reasons": []})
    assert compare(base, new).verdict == "INVALID"
    set_aside([tmp_path / label / "03" for label in ("base", "new")], "the generator was the bottleneck")
    found = compare(base, new, Options(metrics=("p50",)))
    assert found.verdict != "INVALID" and len(found.base.runs) == len(found.new.runs) == 6
    assert sum("set it aside (the generator was the bottleneck)" in note for note in found.notes) == 2
    with pytest.raises(InputError, match="no run of base remains"):
        compare(f"base={tmp_path / 'base' / '03'}", new)


def ab(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if key != "GITHUB_ACTIONS"}
    command = [sys.executable, "-m", "replay.cli", "ab", *words]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=180, check=False, env=env
    )


def write_log(folder: Path, method: str = "GET") -> None:
    (folder / "access.log").write_text("".join(LINE.format(n // 80, n % 7, method) for n in range(80 * 5)))
    (folder / "ab.toml").write_text('trace = "access.log"\nspeed = 10\n')


SESSIONS_MAX = 3
"""How often a session is tried: one stall of a busy machine makes it inconclusive."""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A session whose new build is three times as slow."""
    words = (
        "ab.toml",
        "--together",
        "--base",
        f"{SERVER} 8",
        "--new",
        f"{SERVER} 24",
        "--seed",
        "5",
        "-m",
        "p50",
    )
    steps = (
        "--prepare",
        "echo {url} >> prepared",
        "--reset",
        "echo >> reset",
        "--cleanup",
        "touch was-cleaned",
    )
    for _ in range(SESSIONS_MAX):
        folder = tmp_path_factory.mktemp("together")
        write_log(folder)
        done = ab(folder, *words, *steps, "--cool-down", "0s", "-o", "session", "--json=out.json")
        # A session that cannot tell ends with 0.
        if done.returncode != 0:
            break
    return folder, done


def test_a_slower_build_is_found(session):
    folder, done = session
    assert done.returncode == 99, (done.stdout, done.stderr)
    found = json.loads((folder / "out.json").read_text())
    assert found["design"] == "together" and found["verdict"] == "REGRESSION" and found["labellings"] == 64
    assert json.loads((folder / "session" / "compare.json").read_text()) == found
    assert len(found["base"]["runs"]) == len(found["new"]["runs"]) == 6
    assert found["responses"]["verdict"] == "SAME"


def test_every_restart_is_a_pair_of_runs_with_one_start(session):
    folder, _ = session
    runs = sorted(path for path in (folder / "session").iterdir() if path.is_dir())
    by_number: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_number.setdefault(run.name[:2], []).append(json.loads((run / "run.json").read_text()))
    for pair in by_number.values():
        assert len(pair) == 2 and len({run["start"]["monotonic_ns"] for run in pair}) == 1
        assert all(run["accounts"]["planned"] == 400 for run in pair)
    prepared = (folder / "prepared").read_text().split()
    assert len(prepared) == len(runs) and len((folder / "reset").read_text()) == len(runs) // 2
    assert (folder / "was-cleaned").exists()


def test_the_folder_compares_again_to_the_same(session, tmp_path):
    folder, _ = session
    sides = [
        f"{label}=" + ",".join(sorted(str(p) for p in (folder / "session").glob(f"*-{label}")))
        for label in ("base", "new")
    ]
    found = compare(sides[0], sides[1], Options(metrics=("p50",)))
    first = json.loads((folder / "out.json").read_text())
    assert found.design == "together" and found.verdict == first["verdict"]
    assert found.findings[0].change == pytest.approx(first["metrics"][0]["change"])


@contextlib.contextmanager
def served(*delays_ms: int) -> Iterator[list[str]]:
    """Services at URLs."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(contextlib.nullcontext(os.environ.get("TMPDIR", "/tmp"))))
        yield [
            stack.enter_context(
                Build(f"s{at}", f"{SERVER} {delay}").running(folder / f"together-{os.getpid()}-{at}.log")
            )
            for at, delay in enumerate(delays_ms)
        ]


@pytest.mark.timing
def test_urls_are_compared_as_processes(tmp_path):
    write_log(tmp_path)
    with served(4, 20) as (base, new):
        words = ("ab.toml", "--together", "--base", base, "--new", new, "--cool-down", "0s", "-m", "p50")
        done = ab(tmp_path, *words, "-o", "a", "--json=a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["verdict"] == "REGRESSION" and done.returncode == found["exit_code"] == 0, done.stderr
    assert any("these two processes" in note for note in found["notes"])
    assert "REGRESSION" in done.stdout


def test_one_place_given_twice_is_a_warning(tmp_path):
    write_log(tmp_path)
    with served(1) as (url,):
        words = ("ab.toml", "--together", "--base", url, "--new", f"{url}/", "--cool-down", "0s")
        done = ab(tmp_path, *words, "-o", "a", "--time-limit", "3s")
    assert "compares a service with itself" in done.stderr
    assert done.returncode in (0, 4)


def test_a_build_that_dies_ends_the_session_in_one_line(tmp_path):
    write_log(tmp_path)
    (tmp_path / "ab.toml").write_text('trace = "access.log"\n[breaker]\nover = "1s"\n')
    dies = f"timeout 1.5 {SERVER} 1"
    done = ab(tmp_path, "ab.toml", "--together", "--base", f"{SERVER} 1", "--new", dies, "-o", "a")
    lines = [line for line in done.stderr.splitlines() if line.startswith("replay: ")]
    assert done.returncode == 1 and len(lines) == 1 and "Traceback" not in done.stderr
    assert "-new was stopped" in lines[0] and "failed" in lines[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--together",), "the scenario's methods are ALL"),
        (("--restarts", "8"), "add --together"),
        (("--together", "--methods", "GET", "--engine", "portable"), "no flag --engine"),
        (("--together", "--restarts", "5"), "6<=x<=100"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_starts(tmp_path, words, said):
    write_log(tmp_path, "POST")
    (tmp_path / "ab.toml").write_text('trace = "access.log"\nmethods = "all"\n')
    done = ab(tmp_path, "ab.toml", "--base", "touch began # {port}", "--new", "touch began # {port}", *words)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not (tmp_path / "began").exists()


def test_the_engine_without_lanes_is_refused(tmp_path):
    write_log(tmp_path)
    (tmp_path / "ab.toml").write_text('trace = "access.log"\nengine = "portable"\n')
    done = ab(tmp_path, "ab.toml", "--together", "--base", f"{SERVER} 1", "--new", f"{SERVER} 1", "-o", "a")
    assert done.returncode == 2 and "--together needs native lanes" in done.stderr


class Scripted(Session):
    """A session whose runs were made already, in this order."""

    verdicts: Iterator[str]

    def _one(self, build: Build) -> SideRun:
        self.number += 1
        path = make_run(self.plan.out / f"{self.number:02}-{build.label}", seed=self.number)
        rewrite(path, validity={"verdict": next(self.verdicts), "reasons": []})
        return load_run_folder(path)


def test_a_block_that_ab_makes_again_is_marked_whole(tmp_path):
    verdicts = ["VALID", "INVALID", "VALID", "VALID", *["VALID"] * 24]
    plan = Plan(
        base=Build("base", "http://127.0.0.1:1"),
        new=Build("new", "http://127.0.0.1:2"),
        out=tmp_path / "ab",
        options=Options(metrics=("p50",), tolerance=5.0),
    )
    session = Scripted(plan, write_trace(tmp_path / "t.trace", [Row(0)]), Scenario(), lambda text: None)
    session.verdicts = iter(verdicts)
    assert session.run().verdict == "NO_REGRESSION"
    marked = sorted(path.parent.name for path in (tmp_path / "ab").glob("*/set_aside.json"))
    assert [name[:2] for name in marked] == ["01", "02", "03", "04"]
    sides = [
        f"{label}=" + ",".join(sorted(str(path) for path in (tmp_path / "ab").glob(f"*-{label}")))
        for label in ("base", "new")
    ]
    found = compare(sides[0], sides[1], Options(metrics=("p50",)))
    assert found.verdict != "INVALID" and sum("set it aside" in note for note in found.notes) == 4


@pytest.mark.whole
def test_an_interrupt_saves_both_runs_and_ends_both_builds(tmp_path):
    write_log(tmp_path)
    (tmp_path / "ab.toml").write_text('trace = "access.log"\n')
    words = ["ab", "ab.toml", "--together", "-o", "a"]
    for side in ("base", "new"):
        words += [f"--{side}", f"echo $$ > {side}.pid; exec {SERVER} 1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "replay.cli", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    started = tmp_path / "a" / "01-base" / "started.json", tmp_path / "a" / "01-new" / "started.json"
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in started) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    for side in ("base", "new"):
        document = json.loads((tmp_path / "a" / f"01-{side}" / "run.json").read_text())
        assert document["ending"]["how"] == "interrupted" and document["accounts"]["ok"] > 0
        assert not Path(f"/proc/{(tmp_path / f'{side}.pid').read_text().strip()}").exists()
