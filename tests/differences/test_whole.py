"""The whole way by the real command: traffic recorded by the proxy, two builds of the demo's service in turns, speed and
responses judged apart, and the runs held against the recording.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from replay.staging.service import running
from tests.support.recording import recording

pytestmark = pytest.mark.whole

PATHS = ("/v1/profile", "/v1/training/plans", "/register")
BASIC = "GET /v1/profile=plan:basic"
SERVICE = f"sleep 600 | {sys.executable} -m replay.staging.service --port {{port}} --field '{BASIC}'"
BUILDS = {
    "changed": SERVICE.replace("plan:basic", "plan:prime"),
    "added": SERVICE + " --field 'GET /v1/training/plans=season:spring'",
}
SCENARIO = """
trace = "shop.trace"
speed = 2
[validity]
lateness_p50_floor_invalid_ns = 10_000_000_000
lateness_p90_floor_invalid_ns = 10_000_000_000
own_p50_floor_invalid_ns = 10_000_000_000
own_p90_floor_invalid_ns = 10_000_000_000
run_delay_share_invalid = 1.0
underrun_share_invalid = 1.0
unsent_own_share_invalid = 1.0
"""
"""What is answered does not depend on how late a busy machine sends."""

ACCEPTED = ("--tolerance", "400%", "--error-tolerance", "50%")


def replay(folder, *words):
    """The real command."""
    command = [sys.executable, "-m", "replay.cli", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a trace that the proxy recorded, and a scenario for it."""
    made = tmp_path_factory.mktemp("whole")
    with running(seed=3, fields=(BASIC,)) as port:
        options = ("--upstream", f"http://127.0.0.1:{port}", "--keep-responses")
        with recording(made / "shop.trace", *options) as recorder:
            for number in range(240):
                with urllib.request.urlopen(f"{recorder.url}{PATHS[number % 3]}", timeout=20) as response:
                    response.read()
            assert recorder.stop() == 0, recorder.printed
    (made / "ab.toml").write_text(SCENARIO)
    return made


def session(folder, name):
    words = [
        "--reset",
        "echo again >> resets.txt",
        "--cool-down",
        "10ms",
        *ACCEPTED,
        "--keep-answers",
        "all",
        "--time-limit",
        "200s",
    ]
    done = replay(
        folder, "ab", "ab.toml", "--base", SERVICE, "--new", BUILDS[name], "-o", name, "--seed", 1, *words
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done, json.loads((folder / name / "compare.json").read_text())


def sides(folder: Path, name: str) -> list[str]:
    """The runs of a session."""
    found = {
        side: sorted(path for path in (folder / name).glob(f"*-{side}") if path.is_dir())
        for side in ("base", "new")
    }
    return [f"{side}=" + ",".join(map(str, paths)) for side, paths in found.items()]


def test_a_changed_field_is_different_and_fails_only_where_that_is_asked_for(folder):
    done, found = session(folder, "changed")
    runs = [path for path in (folder / "changed").iterdir() if path.is_dir()]
    assert len((folder / "resets.txt").read_text().splitlines()) == len(runs) >= 12
    assert found["verdict"] in ("NO_REGRESSION", "INCONCLUSIVE", "IMPROVEMENT")
    assert found["responses"]["verdict"] == "DIFFERENT"
    (field,) = [one for one in found["responses"]["fields"] if one["different"]]
    assert (field["route"], field["field"], field["kind"]) == ("GET /v1/profile", "/plan", "value")
    assert (field["examples"][0]["base"], field["examples"][0]["new"]) == ("basic", "prime")
    assert "responses DIFFERENT" in done.stdout
    page = (folder / "changed" / "compare.html").read_text()
    assert "Responses" in page and "/plan" in page and "prime" in page
    words = [*sides(folder, "changed"), *ACCEPTED]
    again = replay(folder, "compare", *words, "--junit=changed.xml", "--fail-on", "different")
    assert again.returncode == 99, again.stdout + again.stderr
    assert "<failure" in (folder / "changed.xml").read_text()
    assert replay(folder, "compare", *words, "--junit=changed.xml").returncode == 0
    assert "<failure" not in (folder / "changed.xml").read_text()
    assert replay(folder, "diff", *sides(folder, "changed")).returncode == 99


def test_runs_against_what_the_proxy_recorded(folder):
    """The base build is what was recorded; the recording is not in the folder that the runs name any more."""
    base = sides(folder, "changed")[0].removeprefix("base=")
    trace = ("--trace", folder / "shop.trace")
    done = replay(folder, "diff", "base=recorded", f"new={base}", "--json=recorded.json", "--values", *trace)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((folder / "recorded.json").read_text())["verdict"] == "SAME"
    new = sides(folder, "changed")[1].removeprefix("new=")
    done = replay(folder, "diff", "base=recorded", f"new={new}", "--values", *trace)
    assert done.returncode == 99 and "/plan" in done.stdout


def test_a_build_that_only_adds_a_field_passes(folder):
    _, found = session(folder, "added")
    kinds = {one["field"]: one["kind"] for one in found["responses"]["fields"] if one["different"]}
    assert kinds == {"/season": "added", "/padding": "value"}, "the padding makes room for it"
