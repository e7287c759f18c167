"""A name costs the queries that glibc would send for it, case by case, held against `getent ahosts` of this machine."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.oracles.glibc_cases import CASES
from tests.support.places import ROOT

AT_ONCE = 8
GLIBC = (2, 36)
"""The version that is modelled, Debian 12's: others differ where servers fail."""

ON_PURPOSE = {"myhostname", "localhost", "x.localhost", "invalid"}
"""Names of RFC 6761, for which `replay` asks nobody (docs/names.md)."""

BY_CHANCE = ("garbage", "truncated", "rotate")
"""Words of cases in which timing decides how many queries go out, or to which server."""


def can_unshare() -> str:
    """Why this machine cannot make namespaces; "" where it can."""
    missing = [tool for tool in ("unshare", "ip", "getent", "mount") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found"
    made = subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True, text=True, check=False)
    return made.stderr.strip() if made.returncode else ""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    if reason := can_unshare():
        pytest.skip(f"needs namespaces of its own: {reason}")
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(map(int, version.split(".")[:2])) != GLIBC:
        pytest.skip(f"models glibc {'.'.join(map(str, GLIBC))}, this machine has {libc} {version}")
    folder = tmp_path_factory.mktemp("glibc")

    def look_up(part: int) -> list[dict[str, Any]]:
        path = folder / f"{part}.json"
        path.write_text(json.dumps(CASES[part::AT_ONCE]))
        command = ["unshare", "-n", "-m", sys.executable, "-m", "tests.oracles.glibc_beside", str(path)]
        root = ROOT
        paths = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
        environ = dict(os.environ, PYTHONPATH=paths)
        done = subprocess.run(
            command, env=environ, capture_output=True, text=True, timeout=300, check=False, cwd=root
        )
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        parts = list(pool.map(look_up, range(AT_ONCE)))
    return {case["label"]: parts[i % AT_ONCE][i // AT_ONCE] for i, case in enumerate(CASES)}


def test_labels_are_unique() -> None:
    assert [label for label, n in Counter(case["label"] for case in CASES).items() if n > 1] == []


@pytest.mark.parametrize("case", CASES, ids=[case["label"] for case in CASES])
def test_a_lookup_asks_what_glibc_asks(case: dict[str, Any], results: dict[str, dict[str, Any]]) -> None:
    result, label = results[case["label"]], case["label"]
    if label in ON_PURPOSE:
        assert result["glibc"][0] and not result["replay"][0]
        return
    (asked_by_glibc, found_by_glibc), (asked, found) = result["glibc"], result["replay"]
    if any(words in label for words in BY_CHANCE):
        assert abs(len(asked) - len(asked_by_glibc)) <= 4
        return
    assert (asked, found) == (asked_by_glibc, found_by_glibc)
    if None not in case["servers"]:
        assert result["noted"] == len(asked)
