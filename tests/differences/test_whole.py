"""The whole way by the real command: two builds of the demo's service in turns, speed and responses judged apart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.whole

LINE = '192.0.2.{client} - - [05/Jan/2026:18:00:{second:02} +0100] "GET /v1/{path} HTTP/1.1" 200 512\n'
SERVICE = f"sleep 600 | {sys.executable} -m replay.staging.service --port {{port}} --field 'GET /v1/profile=plan:basic'"
BUILDS = {
    "changed": SERVICE.replace("plan:basic", "plan:prime"),
    "added": SERVICE + " --field 'GET /v1/training/plans=season:spring'",
}


def replay(folder, *words):
    """The real command."""
    command = [sys.executable, "-m", "replay.cli", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("whole")
    paths = ("profile", "training/plans", "nutrition/foods?q=1")
    lines = [LINE.format(client=n % 9 + 1, second=n // 60, path=paths[n % 3]) for n in range(480)]
    (made / "access.log").write_text("".join(lines))
    (made / "ab.toml").write_text('trace = "access.log"\nspeed = 8\n')
    return made


def session(folder, name):
    words = [
        "--cool-down",
        "10ms",
        "--tolerance",
        "400%",
        "--error-tolerance",
        "50%",
        "--keep-answers",
        "all",
    ]
    done = replay(
        folder, "ab", "ab.toml", "--base", SERVICE, "--new", BUILDS[name], "-o", name, "--seed", 1, *words
    )
    return done, json.loads((folder / name / "compare.json").read_text())


def sides(folder: Path, name: str) -> list[str]:
    """The runs of a session."""
    return [
        f"{side}=" + ",".join(map(str, sorted((folder / name).glob(f"*-{side}")))) for side in ("base", "new")
    ]


def test_a_changed_field_is_different_and_fails_only_where_that_is_asked_for(folder):
    done, found = session(folder, "changed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["verdict"] == "NO_REGRESSION" and found["responses"]["verdict"] == "DIFFERENT"
    (field,) = [one for one in found["responses"]["fields"] if one["different"]]
    assert (field["route"], field["field"], field["kind"]) == ("GET /v1/profile", "/plan", "value")
    assert (field["examples"][0]["base"], field["examples"][0]["new"]) == ("basic", "prime")
    assert "responses DIFFERENT" in done.stdout
    page = (folder / "changed" / "compare.html").read_text()
    assert "Responses" in page and "/plan" in page and "prime" in page
    words = [*sides(folder, "changed"), "--tolerance", "400%", "--error-tolerance", "50%"]
    again = replay(folder, "compare", *words, "--junit=changed.xml", "--fail-on", "different")
    assert again.returncode == 99, again.stdout + again.stderr
    assert "<failure" in (folder / "changed.xml").read_text()
    assert replay(folder, "compare", *words, "--junit=changed.xml").returncode == 0
    assert "<failure" not in (folder / "changed.xml").read_text()
    assert replay(folder, "diff", *sides(folder, "changed")).returncode == 99


def test_a_build_that_only_adds_a_field_passes(folder):
    done, found = session(folder, "added")
    assert done.returncode == 0, done.stdout + done.stderr
    kinds = {one["field"]: one["kind"] for one in found["responses"]["fields"] if one["different"]}
    assert kinds == {"/season": "added", "/padding": "value"}, "the padding makes room for it"
