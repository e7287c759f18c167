"""What tests share: kernels compiled, with their declared signatures only; the machine watched; logs read as Java does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from replay_native.ground import jit, parallel, sources
from tests.support.places import DATA

from .support.certificates import Authority
from .support.machine import Machine

for _name, _fixed in (("fixed", True), ("random", False)):
    settings.register_profile(
        _name, derandomize=_fixed, database=None, deadline=None, print_blob=not _fixed,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
settings.load_profile("fixed")
"""The same command tries the same cases: a change that breaks nothing fails nothing. `make fuzz` tries others, by random."""

IN_CI = os.environ.get("CI", "").lower() == "true"
KERNELS = sources.with_entries()
"""Modules with an entry: a kernel of a declared signature."""

FEW = ("ground.shared", "ledger.hdr", "http1.parser", "ledger.record")
"""Those that most tests need."""


def pytest_configure(config: pytest.Config) -> None:
    """Before workers that run side by side would each compile the same kernels, they are compiled once."""
    in_worker, workers = hasattr(config, "workerinput"), getattr(config.option, "numprocesses", None)
    if not in_worker and (IN_CI or workers) and not jit.is_compiled(KERNELS):
        parallel.compile_apart(KERNELS)


MACHINE = Machine()
RERUNS = 2
"""Of a test that is marked `timing` and failed while the machine kept it waiting. Any other failure stands."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timing"):
            item.add_marker(pytest.mark.flaky(reruns=RERUNS, condition=MACHINE.kept_us_waiting))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    MACHINE.watch()


def pytest_unconfigure() -> None:
    MACHINE.close()


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    """Where all kernels are at hand each takes the same types in any order of tests."""
    jit.warm(KERNELS if jit.is_compiled(KERNELS) else FEW)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("certificates"))


BUILD_TIMEOUT_S = 300

Java = Callable[..., str]


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> Java:
    """`java("json", path)` runs tests/java on a log. In CI a missing Java or Maven is a failure."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing and not IN_CI:
        pytest.skip(f"{' and '.join(missing)} not found: needed to read logs as Java does")
    project = tmp_path_factory.mktemp("java") / "project"
    shutil.copytree(DATA / "java", project, ignore=shutil.ignore_patterns("target"))
    failures = []
    for offline in (["-o"], []):
        command = ["mvn", "-q", "-B", *offline, "package"]
        built = subprocess.run(
            command, cwd=project, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
        if built.returncode == 0:
            break
        failures.append(built.stdout[-2_000:])
    else:
        if IN_CI:
            pytest.fail("Maven could not build tests/java:\n" + failures[-1])
        pytest.skip("Maven could not build tests/java (no network, and nothing in its cache)")
    jars = [project / "target" / "read-hlog.jar", *(project / "target" / "dependency").glob("*.jar")]

    def run(*arguments: str | Path) -> str:
        command = ["java", "-cp", ":".join(map(str, jars)), "ReadHlog", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    return run


def read_by_java(java: Java, path: Path) -> list[dict]:
    """The lines of a log as Java reads them: tag, count, percentiles."""
    return [json.loads(row) for row in java("json", path).splitlines()]
