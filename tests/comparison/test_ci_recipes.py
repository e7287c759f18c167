"""docs/ci.md: the recipes' own commands, run by a shell as a CI system would, in a project with two branches."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import numpy as np
import pytest
import xmlschema
import yaml

from replay.cli.findings import kernels_key
from replay.comparison.builds import Build
from replay_native.ground.cache_folder import root
from tests.support.compare_data import make_run
from tests.support.places import ROOT

from .test_ab import LINE
from .test_compare import JUNIT

pytestmark = pytest.mark.whole

PAGE = (ROOT / "docs" / "ci.md").read_text()
RECIPES: list[dict[str, Any]] = [
    yaml.safe_load(text) for text in re.findall(r"```yaml\n(.+?)```", PAGE, re.DOTALL)
]
GITHUB, GITLAB, NIGHTLY, ACTION = RECIPES
(JENKINS,) = re.findall(r"```groovy\n(.+?)```", PAGE, re.DOTALL)
INSTALL = "pip install ./replay_engine-*.whl"
SERVER = ROOT / "tests" / "support" / "tiny_server.py"
BUILD = f"""#!/bin/sh
printf '#!/bin/sh\\nexec {sys.executable} {ROOT}/tests/support/tiny_server.py "$1" %s\\n' "$(cat delay_ms)" > server
chmod +x server
"""


def git(folder: Path, *words: str) -> None:
    named = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *named, *words], cwd=folder, check=True, capture_output=True, timeout=30)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone of a project on a branch whose build is ten times as slow as main's."""
    origin = tmp_path / "origin"
    (origin / "ci").mkdir(parents=True)
    (origin / "build").write_text(BUILD)
    (origin / "build").chmod(0o755)
    (origin / "delay_ms").write_text("2")
    (origin / "ci" / "access.log").write_text("".join(LINE.format(n // 40, n % 7) for n in range(400)))
    (origin / "ci" / "evening.toml").write_text('trace = "access.log"\nspeed = 20\n')
    git(origin, "init")
    git(origin, "add", ".")
    git(origin, "commit", "-m", "one")
    git(origin, "checkout", "-b", "slow")
    (origin / "delay_ms").write_text("20")
    git(origin, "commit", "-am", "slow")
    git(tmp_path, "clone", "-q", str(origin), "project")
    return tmp_path / "project"


def run(command: str, project: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A step, as GitHub's and GitLab's shells run it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "CI_"))}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
        cwd=project, capture_output=True, text=True, timeout=240, check=False, env={**kept, "PATH": path, **env},
    )  # fmt: skip


def steps(recipe: dict[str, Any]) -> list[str]:
    return [step["run"] for step in recipe["jobs"]["replay"]["steps"] if "run" in step]


def test_the_github_recipe(project, tmp_path):
    """One block is all that the time limit allows, so that nothing can be told: exit 0, and every file is there."""
    env = GITHUB["env"] | {
        "GITHUB_ACTIONS": "true", "GITHUB_BASE_REF": "main", "TIME_LIMIT": "1s",
        "GITHUB_OUTPUT": str(tmp_path / "output"), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }  # fmt: skip
    install, *commands = steps(GITHUB)
    assert install == INSTALL
    for command in commands:
        done = run(command, project, **env)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert (tmp_path / "output").read_text() == f"key={kernels_key()}\n"
    assert (tmp_path / "summary.md").read_text().startswith("### ❔ INCONCLUSIVE: ")
    assert "::warning title=replay%3A INCONCLUSIVE::" in done.stdout
    upload = GITHUB["jobs"]["replay"]["steps"][-1]["with"]["path"].split()
    assert all((project / name).stat().st_size for name in upload)
    xmlschema.XMLSchema(JUNIT).validate(project / "replay.xml")


@pytest.mark.timing
def test_the_gitlab_recipe_fails_on_a_regression(project):
    job = GITLAB["replay"]
    env = {
        name: str(value).replace("$CI_PROJECT_DIR", str(project)) for name, value in job["variables"].items()
    }
    env |= {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main", "XDG_CACHE_HOME": str(root().parents[1])}
    install, *prepare = job["before_script"]
    assert install == INSTALL
    for command in prepare:
        assert run(command, project, **env).returncode == 0
    (command,) = job["script"]
    done = run(command.replace("-o session", "-o session --cool-down 0s"), project, **env)
    assert done.returncode == 99, (done.stdout, done.stderr)
    assert done.stdout.startswith("REGRESSION: new is worse than base")
    assert all((project / name).stat().st_size for name in job["artifacts"]["paths"])
    xmlschema.XMLSchema(JUNIT).validate(project / job["artifacts"]["reports"]["junit"])
    assert json.loads((project / "session" / "compare.json").read_text())["exit_code"] == 99


def test_the_nightly_recipe(project, tmp_path):
    """One night, copied to fourteen: two equal weeks."""
    env = {"HOME": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    replay_it, compare_them = steps(NIGHTLY)
    with Build("base", f"{sys.executable} {ROOT}/tests/support/tiny_server.py {{port}} 2").running(
        tmp_path / "log"
    ) as url:
        with (project / "ci" / "evening.toml").open("a") as scenario:
            scenario.write(f'target = "{url}"\n')
        done = run(replay_it, project, **env, XDG_CACHE_HOME=str(root().parents[1]))
    assert done.returncode == 0, (done.stdout, done.stderr)
    (night,) = (tmp_path / "runs").iterdir()
    for number in range(13):
        shutil.copytree(night, tmp_path / "runs" / f"2020-01-{number:02}")
    done = run(compare_them, project, **env, XDG_CACHE_HOME=str(root().parents[1]))
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "now is not slower than before" in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize(("factor", "drift", "code"), [(1.2, 0.0, 99), (1.0, 0.03, 0)])
def test_the_nightly_recipe_on_planted_nights(project, tmp_path, factor, drift, code):
    """A week that is 20% slower than the week before is found; a machine that gets 3% slower every night is not accused."""
    rng = np.random.default_rng(8)
    for night in range(14):
        level = (1 + drift * night) * (factor if night >= 7 else 1.0) * math.exp(rng.normal(0, 0.02))
        make_run(
            tmp_path / "runs" / f"2026-01-{night + 1:02}", seed=night, run_sd=0.0, number=24 * 60 * night,
            slower={0: level, 1: level},
        )  # fmt: skip
    env = {"HOME": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    _, compare_them = steps(NIGHTLY)
    done = run(compare_them, project, **env, XDG_CACHE_HOME=str(root().parents[1]))
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "7 and 7 sessions, with a steady drift from session to session removed" in " ".join(
        done.stdout.split()
    )
    assert done.stdout.startswith("REGRESSION: now is worse than before") == (code == 99)


def test_the_cache_of_the_recipes_is_where_kernels_are_kept():
    steps_with = {step["uses"]: step["with"] for step in GITHUB["jobs"]["replay"]["steps"] if "uses" in step}
    cache = steps_with["actions/cache@v4"]
    assert cache["path"] == "~/.cache/replay" and "steps.kernels.outputs.key" in cache["key"]
    assert GITLAB["replay"]["cache"]["paths"] == [".cache/replay"]
    assert root().parts[-2:] == ("replay", "kernels")


@pytest.mark.timing
def test_the_jenkins_recipe(project):
    """Its `sh` steps, as Jenkins runs them (`sh -xe`); the time limit allows for one block, so that nothing can be told."""
    install, build, compare = re.findall(r"sh '''(.+?)'''", JENKINS, re.DOTALL)
    assert INSTALL in install
    env = {"CHANGE_TARGET": "main", "TIME_LIMIT": "1s"}
    assert run(build, project, **env).returncode == 0
    done = run(compare, project, **env)
    assert done.returncode == 0, (done.stdout, done.stderr)
    for name in re.findall(r"artifacts: '([^']+)'", JENKINS)[0].split(", "):
        assert (project / name).stat().st_size, name
    xmlschema.XMLSchema(JUNIT).validate(project / re.findall(r"junit '([^']+)'", JENKINS)[0])


@pytest.fixture
def action() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    return found


def run_action(action: dict[str, Any], project: Path, tmp_path: Path, command: str, arguments: str) -> Any:
    """The step that replays, as the runner starts it; the others are of GitHub or pip."""
    (step,) = (step for step in action["runs"]["steps"] if step.get("id") == "replay")
    assert {name: step["env"][name] for name in step["env"]} == {
        "COMMAND": "${{ inputs.command }}", "ARGUMENTS": "${{ inputs.arguments }}"
    }  # fmt: skip
    return run(
        step["run"], project, COMMAND=command, ARGUMENTS=arguments, GITHUB_ACTION_PATH=str(ROOT),
        GITHUB_OUTPUT=str(tmp_path / "output"), GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"),
        GITHUB_ACTIONS="true", XDG_CACHE_HOME=str(root().parents[1]),
    )  # fmt: skip


@pytest.mark.timing
@pytest.mark.parametrize(("objective", "code"), [("p99<10s", 0), ("p50<1us", 99)])
def test_the_action_runs_and_gates(action, project, tmp_path, objective, code):
    with Build("base", f"{sys.executable} {SERVER} {{port}} 2").running(tmp_path / "log") as url:
        done = run_action(
            action, project, tmp_path, "run", f"ci/evening.toml --target {url} --slo '{objective}'"
        )
    assert done.returncode == code, (done.stdout, done.stderr)
    assert (tmp_path / "output").read_text() == f"code={code}\n"
    assert objective.partition("<")[0] in (tmp_path / "summary.md").read_text()
    assert ("::error title=replay::an objective was missed" in done.stdout) == (code == 99)
    upload = action["runs"]["steps"][-1]["with"]["path"]
    assert {"run", "replay.html", "output.txt"} <= {path.name for path in (project / upload).iterdir()}


@pytest.mark.timing
def test_the_action_compares(action, project, tmp_path):
    assert (
        run("git worktree add ../base origin/main && ./build && (cd ../base && ./build)", project).returncode
        == 0
    )
    arguments = "ci/evening.toml --time-limit 1s --base '../base/server {port}' --new './server {port}'"
    done = run_action(action, project, tmp_path, "ab", arguments)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "INCONCLUSIVE" in (tmp_path / "summary.md").read_text()
    xmlschema.XMLSchema(JUNIT).validate(project / "replay-results" / "replay.xml")


def test_the_action_refuses_another_command(action, project, tmp_path):
    done = run_action(action, project, tmp_path, "rm", "-rf .")
    assert done.returncode == 2 and "::error title=replay::rm is not run, ab or compare" in done.stdout


def test_the_recipe_of_the_action_gives_what_it_takes(action):
    (given,) = (step["with"] for step in ACTION["jobs"]["replay"]["steps"] if step.get("uses") == "./.replay")
    assert set(given) <= set(action["inputs"])
    assert {name for name, each in action["inputs"].items() if each.get("required")} <= set(given)
    assert all(
        INSTALL in page or "GITHUB_ACTION_PATH" in page for page in (PAGE, (ROOT / "action.yml").read_text())
    )


def test_the_kubernetes_job_is_valid_and_has_no_privilege():
    job = yaml.safe_load((ROOT / "deploy" / "job.yaml").read_text())
    kubernetes_validate.validate(job, "1.30", strict=True)
    job["spec"]["template"]["spec"]["containers"][0]["image"] = 7
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.30", strict=True)
