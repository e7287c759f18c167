"""What a run imports is what an installation brings: declared in pyproject.toml, and in requirements.lock."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib

import pytest

from tests.support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"replay", "replay_native"}
NOT_OF_A_RUN = {"all", "dev", "docs"}
"""Extras that nobody needs to run it, and the one that names the others."""
LOADED_BY = {"replay/pytest_plugin.py": "pytest"}
"""Modules that another package loads, which is there then."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def named(requirements: list[str]) -> set[str]:
    """The packages of requirements: `hypercorn[trio]>=0.18` is hypercorn."""
    found = (re.match(r"[\w.-]+", line) for line in requirements)
    return {normal(match[0]) for match in found if match}


def imported() -> dict[str, str]:
    """The other packages that our sources import, each with a file that does."""
    found: dict[str, str] = {}
    for folder in ("replay", "native/replay_native"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                    names = [node.module]
                found |= {name.split(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return {name: path for name, path in found.items() if name not in {*sys.stdlib_module_names, *OURS}}


def test_every_package_that_is_imported_is_declared():
    extras = PROJECT["optional-dependencies"]
    declared = named(PROJECT["dependencies"]).union(
        *(named(extras[name]) for name in extras if name not in NOT_OF_A_RUN)
    )
    packages = importlib.metadata.packages_distributions()
    for module, path in imported().items():
        if LOADED_BY.get(path) == module:
            continue
        distributions = {normal(name) for name in packages.get(module, [module])}
        assert distributions & declared, f"{path} imports {module}, which no installation brings"


@pytest.mark.parametrize("extra", ["live", "metrics", "pcap", "cluster", "all"])
def test_extras_are_declared(extra):
    assert PROJECT["optional-dependencies"][extra]


def test_all_is_every_extra_of_a_run():
    (line,) = PROJECT["optional-dependencies"]["all"]
    inside = set(re.findall(r"\[(.+)\]", line)[0].split(","))
    assert inside == set(PROJECT["optional-dependencies"]) - NOT_OF_A_RUN


def test_the_locks_name_packages_and_versions_only_and_each_once():
    lines = [
        line for name in ("requirements.lock", "requirements-test.lock") for line in (ROOT / name).read_text().split("\n")
        if line
    ]  # fmt: skip
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert len({normal(line.split("==")[0]) for line in lines}) == len(lines)


def test_the_lock_of_a_run_has_its_dependencies_and_no_tools_of_tests():
    locked = named((ROOT / "requirements.lock").read_text().split("\n"))
    tools = named(PROJECT["optional-dependencies"]["dev"])
    assert named(PROJECT["dependencies"]) <= locked
    assert not locked & (tools - named(PROJECT["dependencies"]))
