"""`make wheel`: the plain wheel with kernels for one CPython, as pip reads it."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT

INFO = "replay_engine-1.0.dist-info"
METADATA = """\
Metadata-Version: 2.4
Name: replay-engine
Version: 1.0
Requires-Python: >=3.11
Requires-Dist: click>=8.1
Requires-Dist: numba-scipy>=1
Requires-Dist: numba>=0.61

Numba compiles kernels.
"""


@pytest.fixture(scope="module")
def make_wheels() -> Any:
    spec = importlib.util.spec_from_file_location("make_wheels", ROOT / "deploy" / "make_wheels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wheel_with_kernels_pins_what_compiled_them(make_wheels, tmp_path: Path):
    plain = tmp_path / "replay_engine-1.0-py3-none-any.whl"
    with zipfile.ZipFile(plain, "w") as wheel:
        wheel.writestr("replay_native/__init__.py", "")
        wheel.writestr(f"{INFO}/METADATA", METADATA)
        wheel.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{INFO}/RECORD", "replay_native/__init__.py,,\n")
    archive = tmp_path / "x86-64.kernels"
    archive.write_bytes(b"kernels")
    (tmp_path / "out").mkdir()
    made = make_wheels.with_kernels(
        plain, [archive], "cp312", {"numba": "0.68.1", "llvmlite": "0.50.0"}, tmp_path / "out"
    )
    assert made.name == "replay_engine-1.0-cp312-cp312-linux_x86_64.whl"
    with zipfile.ZipFile(made) as wheel:
        files = {name: wheel.read(name) for name in wheel.namelist()}
    assert files["replay_native/compiled/x86-64.kernels"] == b"kernels"
    metadata = Parser().parsestr(files[f"{INFO}/METADATA"].decode())
    assert metadata["Requires-Python"] == "==3.12.*"
    assert sorted(metadata.get_all("Requires-Dist") or []) == [
        "click>=8.1", "llvmlite==0.50.0", "numba-scipy>=1", "numba==0.68.1"
    ]  # fmt: skip
    assert b"Tag: cp312-cp312-linux_x86_64\n" in files[f"{INFO}/WHEEL"]
    assert b"Root-Is-Purelib: false\n" in files[f"{INFO}/WHEEL"]
    recorded = [line.split(",") for line in files[f"{INFO}/RECORD"].decode().splitlines()]
    assert {name for name, *_ in recorded} == set(files)
    for name, digest, size in recorded:
        if name.endswith("/RECORD"):
            continue
        expected = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
        assert (digest, size) == (f"sha256={expected}", str(len(files[name])))
