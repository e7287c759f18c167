"""Logs that others wrote are read and compared: Java's HistogramLogWriter, and hdr-histogram-js's."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from replay.comparison.decision import Options
from replay.comparison.verdict import compare
from replay.ledger.histogram import Layout
from replay.results.hlog import read_hlog
from tests.support.places import DATA

from .test_compare import logs

JS_PACKAGE = "hdr-histogram-js@3.0.1"
SCRIPT = DATA / "js" / "write_hlog.js"


def test_logs_of_javas_writer(java, tmp_path):
    sides = {}
    for label, factor in (("base", 1.0), ("new", 1.5)):
        original = logs(tmp_path, label, factor, Layout(3), "us", runs=5)
        copied = []
        for path in original.partition("=")[2].split(","):
            target = Path(path).with_suffix(".java.hlog")
            java("copy", path, target)
            copied.append(str(target))
        sides[label] = original, f"{label}=" + ",".join(copied)
    ours = compare(sides["base"][0], sides["new"][0])
    theirs = compare(sides["base"][1], sides["new"][1], Options(unit="us"))
    assert theirs.verdict == ours.verdict == "REGRESSION"
    assert [(f.metric, f.change, f.low, f.high) for f in theirs.findings] == [
        (f.metric, f.change, f.low, f.high) for f in ours.findings
    ]


@pytest.fixture(scope="module")
def js(tmp_path_factory):
    """`js(level, seed, digits, path)` writes a log by hdr-histogram-js; what it counted of each interval."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm not found: needed to write logs as hdr-histogram-js does")
    folder = tmp_path_factory.mktemp("js")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline", JS_PACKAGE]
    try:
        subprocess.run(install, cwd=folder, capture_output=True, timeout=30, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        pytest.skip("hdr-histogram-js could not be installed (no network?)")
    env = {**os.environ, "NODE_PATH": str(folder / "node_modules")}

    def run(level: float, seed: int, digits: int, path: Path) -> list[dict]:
        command = ["node", str(SCRIPT), str(level), str(seed), str(digits)]
        with path.open("wb") as file:
            made = subprocess.run(
                command, stdout=file, stderr=subprocess.PIPE, timeout=60, check=True, env=env
            )
        return [json.loads(line) for line in made.stderr.splitlines()]

    return run


@pytest.mark.parametrize("digits", [2, 3])
def test_logs_of_hdr_histogram_js(js, tmp_path, digits):
    sides: dict[str, list[str]] = {"base": [], "new": []}
    for label, level in (("base", 8.0), ("new", 8.0 + math.log(1.4))):
        for n in range(4):
            path = tmp_path / f"{label}{n}.hlog"
            counted = js(level, 10 * n + len(label), digits, path)
            log = read_hlog(path)
            assert not log.problems
            for interval, row in zip(log.intervals, counted, strict=True):
                assert (interval.tag, interval.histogram.count) == (row["tag"], row["count"])
                assert row["max"] <= interval.histogram.max <= row["max"] * (1 + 10.0**-digits)
            sides[label].append(str(path))
    base, new = (f"{label}=" + ",".join(paths) for label, paths in sides.items())
    found = compare(base, new, Options(unit="us"))
    assert found.verdict == "REGRESSION"
    assert {f.metric.where for f in found.findings} == {"all", "GET_/x"}
    medians = [f for f in found.findings if f.metric.name == "p50"]
    assert np.allclose([f.change for f in medians], 0.4, atol=0.06)
    assert np.allclose([f.base for f in medians], math.exp(8) * 1_000, rtol=0.05)
