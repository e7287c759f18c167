"""`replay ab`: builds are started and ended for sure, blocks are random and whole, and the verdict is the comparison's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replay.comparison.builds import Build, free_port, run_step
from replay.comparison.looks import LOOKS
from replay.errors import TargetError, UsageError
from tests.support.places import ROOT

SERVER = f"{sys.executable} {ROOT / 'tests' / 'support' / 'tiny_server.py'} {{port}}"
LINE = '192.0.2.1 - - [05/Jan/2026:18:00:{0:02} +0100] "GET /users/{1} HTTP/1.1" 200 512\n'


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_build_is_ready_when_it_answers_and_gone_afterwards(tmp_path):
    log = tmp_path / "build.log"
    with Build("base", f"echo $$ & exec {SERVER} 0").running(log, "/health") as url:
        pid = int(log.read_text().split()[0])
        assert url.startswith("http://127.0.0.1:") and alive(pid)
    assert not alive(pid)


def test_children_that_ignore_the_end_are_ended(tmp_path):
    log = tmp_path / "build.log"
    stubborn = "(trap '' TERM; sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done') &"
    with Build("base", f"{stubborn} {SERVER} 0").running(log):
        deadline = time.monotonic() + 5
        while not log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        pid = int(log.read_text().split()[0])
        assert alive(pid)
    assert not alive(pid)


def test_they_are_ended_when_the_run_fails(tmp_path):
    log = tmp_path / "build.log"
    with pytest.raises(ZeroDivisionError), Build("base", f"echo $$; exec {SERVER} 0").running(log):
        raise ZeroDivisionError
    assert not alive(int(log.read_text().split()[0]))


def test_a_build_that_ends_says_its_last_words(tmp_path):
    build = Build("new", "echo cannot bind {port}; exit 3")
    with (
        pytest.raises(TargetError, match=r"new build ended with 3 .*cannot bind"),
        build.running(tmp_path / "log"),
    ):
        pass


def test_a_build_that_never_listens(tmp_path):
    build = Build("new", "sleep 30 # {port}")
    began = time.monotonic()
    with (
        pytest.raises(TargetError, match=r"not ready after 0\.3 s"),
        build.running(tmp_path / "log", ready_s=0.3),
    ):
        pass
    assert time.monotonic() - began < 5


def test_a_build_that_answers_only_errors_is_not_ready(tmp_path):
    build = Build("new", f"{SERVER} 0")
    wrong = f"http://127.0.0.1:{free_port()}/"
    with pytest.raises(TargetError, match="does not answer"), build.running(tmp_path / "log", wrong, 0.3):
        pass


def test_wrong_commands():
    with pytest.raises(UsageError, match=r"has no \{port\}"):
        Build("base", "serve --port 80")
    assert Build("base", "http://127.0.0.1:8080").is_url


def test_steps_that_fail_or_hang_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"--setup: 'echo no; false' ended with 1: no"):
        run_step("setup", "echo no; false", tmp_path / "a", 10)
    with pytest.raises(UsageError, match=r"--prepare: not finished after 1 s"):
        run_step("prepare", "sleep 20", tmp_path / "b", 0.2)


def test_the_looks_share_five_percent_and_each_can_be_reached():
    assert sum(look.alpha for look in LOOKS) == pytest.approx(0.05)
    assert all(2 / 6**look.blocks <= look.alpha for look in LOOKS)


SESSIONS_MAX = 3
"""How often a session is tried: one stall of a busy machine makes it inconclusive."""


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A session whose new build is three times as slow."""
    folder = tmp_path_factory.mktemp("ab")
    (folder / "access.log").write_text("".join(LINE.format(n // 80, n % 7) for n in range(80 * 10)))
    (folder / "ab.toml").write_text('trace = "access.log"\nspeed = 20\nduration = "400ms"\n')
    words = [
        sys.executable,
        "-m",
        "replay.cli",
        "ab",
        "ab.toml",
        "--base",
        f"{SERVER} 8",
        "--new",
        f"{SERVER} 24",
    ]
    words += [
        "--setup",
        "touch was-set-up",
        "--prepare",
        "echo {url} >> prepared",
        "--cleanup",
        "touch was-cleaned",
    ]
    words += [
        "-o",
        "session",
        "--cool-down",
        "0s",
        "--seed",
        "5",
        "-m",
        "p50",
        "-m",
        "errors",
        "--json",
        "out.json",
    ]
    env = {key: value for key, value in os.environ.items() if key != "GITHUB_ACTIONS"}
    for number in range(SESSIONS_MAX):
        place = folder / str(number)
        place.mkdir()
        for name in ("access.log", "ab.toml"):
            shutil.copy(folder / name, place)
        done = subprocess.run(
            words, cwd=place, capture_output=True, text=True, timeout=120, check=False, env=env
        )
        # A session that cannot tell ends with 0.
        if done.returncode != 0:
            break
    return place, done


def test_a_slower_build_is_found(session):
    folder, done = session
    assert done.returncode == 99, (done.stdout, done.stderr)
    assert done.stdout.startswith("REGRESSION: new is worse than base")
    found = json.loads((folder / "out.json").read_text())
    # A busy machine may delay the first look.
    look = next(look for look in LOOKS if look.alpha == found["alpha"])
    assert found["design"] == f"labels within {look.blocks} blocks"
    p50 = next(row for row in found["metrics"] if row["metric"] == "p50")
    assert 1.0 < p50["change"] < 3.0
    as_extreme = p50["p_adjusted"] * 6**look.blocks
    assert (
        as_extreme == pytest.approx(round(as_extreme))
        and 2 <= round(as_extreme) <= look.alpha * 6**look.blocks
    )
    assert json.loads((folder / "session" / "compare.json").read_text()) == found


def test_its_blocks_are_whole_and_its_runs_can_be_compared_again(session):
    folder, _ = session
    order = [path.name.partition("-")[2] for path in sorted((folder / "session").iterdir()) if path.is_dir()]
    assert len(order) >= 12, "a block in which the machine kept us waiting is made again"
    blocks = {tuple(order[at : at + 4]) for at in range(0, len(order), 4)}
    assert blocks <= {("base", "new", "new", "base"), ("new", "base", "base", "new")}
    assert (folder / "was-set-up").exists() and (folder / "was-cleaned").exists()
    assert len((folder / "prepared").read_text().split()) == len(order)


@pytest.mark.timing
def test_a_build_that_fails_is_one_line(tmp_path):
    (tmp_path / "a.log").write_text(LINE.format(1, 1) * 20)
    words = [
        sys.executable,
        "-m",
        "replay.cli",
        "ab",
        "a.log",
        "--base",
        "exit 9 # {port}",
        "--new",
        f"{SERVER} 1",
    ]
    done = subprocess.run(
        [*words, "--cleanup", "touch cleaned"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("replay: ")]
    assert len(lines) == 1 and "Traceback" not in done.stderr
    assert "the base build ended with 9 before it was ready" in lines[0]
    # A random draw decides which build has the first turn. If the other one had it, requests were sent.
    assert done.returncode == (1 if "the runs so far are in" in lines[0] else 2)
    assert (tmp_path / "cleaned").exists()


def test_it_says_where_its_page_is(session):
    folder, done = session
    page = folder / "session" / "compare.html"
    assert (
        "the page of this comparison: session/compare.html" in done.stdout and "</html>" in page.read_text()
    )
