"""`replay rehearse` by the real command: one scene, an interrupt, a process of the twin that dies, wrong usage."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from replay.rehearsal.document import Rehearsal, SceneResult, exit_code

REPLAY = (sys.executable, "-m", "replay.cli")
LONGEST_S = 90.0


def rehearse(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REPLAY, "rehearse", *arguments],
        check=False,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=3 * LONGEST_S,
    )


def started(process: subprocess.Popen[str], log: Path) -> list[int]:
    """The processes of a twin, once it serves and the run has begun."""
    until_s = time.monotonic() + LONGEST_S
    while time.monotonic() < until_s:
        if process.poll() is not None:
            pytest.fail(f"the rehearsal ended by itself: {process.communicate()}")
        if (log.parent / "before" / "started.json").exists() or (log.parent / ".before").exists():
            first = json.loads(log.read_text().splitlines()[0])
            assert first["what"] == "started"
            return [int(pid) for pid in first["pids"]]
        time.sleep(0.05)
    pytest.fail("the twin did not start")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.whole
def test_a_scene_fails_before_its_fix_and_recovers_after_it(tmp_path):
    ended = rehearse("--scene", "cascade", "--headless", "--seed", "5", "-o", "out", cwd=tmp_path)
    assert ended.returncode in (0, 4), ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    document = json.loads((tmp_path / "out" / "rehearsal.json").read_text())
    assert document["seed"] == 5
    (scene,) = document["scenes"]
    assert (scene["name"], scene["number"]) == ("cascade", 3)
    assert scene["verdict"] == {0: "AS_PROMISED", 4: "MACHINE_TOO_BUSY"}[ended.returncode]
    if ended.returncode == 0:
        assert (scene["before"]["verdict"], scene["after"]["verdict"]) == ("FAILED", "PASSED")
        assert scene["after"]["good"] > scene["before"]["good"]
        assert scene["before"]["highest"]["payment.queue"] >= 5
        assert scene["before"]["broken"] == scene["after"]["broken"] == []
    else:
        assert scene["reasons"]
    page = (tmp_path / "out" / "rehearsal.html").read_text()
    assert "its callers fail with it" in page
    # Ten scenes stay below 300 kB: each chart is drawn once, and script and style are shared.
    assert page.count('role="img"') == 3 + len(scene["before"]["highest"])
    assert len(page) < 50_000
    for name in ("before.twin.toml", "after.twin.toml", "scenario.toml", "before.log", "before/run.json"):
        assert (tmp_path / "out" / "03-cascade" / name).exists()


@pytest.mark.whole
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_no_file(tmp_path, number):
    process = subprocess.Popen(
        [*REPLAY, "rehearse", "--scene", "1", "-o", "out"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pids = started(process, tmp_path / "out" / "01-monday" / "before.log")
    process.send_signal(number)
    printed, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 130, printed + errors
    assert "Traceback" not in errors
    assert not any(map(is_alive, pids))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.whole
def test_a_twin_that_dies_ends_the_scene_and_says_so(tmp_path):
    process = subprocess.Popen(
        [*REPLAY, "rehearse", "--scene", "1", "-o", "out"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    (pid, *_) = started(process, tmp_path / "out" / "01-monday" / "before.log")
    os.kill(pid, signal.SIGKILL)
    printed, errors = process.communicate(timeout=LONGEST_S)
    assert process.returncode == 1, printed + errors
    assert "the twin has ended" in errors and "signal 9" in errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--scene", "11"), "there is no such scene"),
        (("--scene", "retris"), "did you mean retries?"),
        (("--scene", "1", "--all"), "contradict"),
        (("--seed", "x"), "--seed"),
        (("--scene", "1", "-o", "there"), "exists already"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_sent(tmp_path, arguments, named):
    (tmp_path / "there").mkdir()
    ended = rehearse(*arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert named in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_list_has_every_scene_with_its_time(tmp_path):
    ended = rehearse("--list", cwd=tmp_path)
    assert ended.returncode == 0
    for name in ("monday", "retries", "evening"):
        assert name in ended.stdout
    assert ended.stdout.count(" s ") >= 10
    assert list(tmp_path.iterdir()) == []


def scene_of(verdict: str) -> SceneResult:
    import msgspec

    side = {
        "run": "", "verdict": "FAILED", "validity": "VALID", "planned": 1, "good": 0, "failed_share": 1.0,
        "p50_ns": None, "p99_ns": None, "objectives": [],
    }  # fmt: skip
    scene = {
        "number": 1,
        "name": "",
        "title": "",
        "folder": "",
        "before": side,
        "after": side,
        "verdict": verdict,
    }
    return msgspec.convert(scene, SceneResult)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["AS_PROMISED"], 0),
        (["AS_PROMISED", "MACHINE_TOO_BUSY"], 4),
        (["MACHINE_TOO_BUSY", "NOT_AS_PROMISED", "AS_PROMISED"], 99),
    ],
)
def test_the_worst_scene_is_the_exit_code(verdicts, code):
    rehearsal = Rehearsal(seed=1, scenes=[scene_of(verdict) for verdict in verdicts])
    assert exit_code(rehearsal.scenes) == code
