"""Kernels are compiled for the types that they declare, in whatever order modules are asked for."""

from __future__ import annotations

import ast
import subprocess
import sys

import numpy as np
import pytest

from replay_native.ground import cache_folder, jit, sources
from replay_native.ground.jit import kernel
from replay_native.ledger import lane_metrics, record

AFTER_ITS_CALLER = """
from replay_native.ground import cache_folder, jit, sources
jit.warm(["kafka.recordbatch"])
jit.warm(["kafka.crc32c"])
from replay_native.kafka import crc32c
print(crc32c.joined(1, 2, 3))
try:
    crc32c.joined("1", 2, 3)
except TypeError:
    print("refused")
"""


@pytest.mark.whole
def test_a_kernel_that_its_caller_had_compiled_is_an_entry_too():
    done = subprocess.run(
        [sys.executable, "-c", AFTER_ITS_CALLER], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["refused"]


def test_a_constant_makes_no_version_of_a_kernel(monkeypatch, tmp_path):
    # The test has its own cache: a caller loaded from a cache would compile nothing that could be counted.
    monkeypatch.setattr(cache_folder, "places", lambda: ())
    monkeypatch.setattr(cache_folder, "root", lambda: tmp_path)

    @kernel()
    def plus(number, more):
        return number + more

    @kernel("int64(int64)")
    def plus_constants(number):
        return plus(number, 1) + plus(number, 2)

    plus_constants.compile("int64(int64)")  # type: ignore[attr-defined]
    assert plus_constants(10) == 23
    assert len(plus.signatures) == 1  # type: ignore[attr-defined]


def test_a_bundle_is_read_and_written_in_place_and_one_of_other_types_refused(tmp_path):
    jit.warm(["ledger.record"])
    metrics = lane_metrics.create(tmp_path / "metrics", 1, 0)
    record.record_attempt(metrics)
    assert metrics.counters[lane_metrics.C.sent] == metrics.counters[lane_metrics.C.in_flight] == 1
    for wrong in (metrics.counters.view(np.uint64), np.zeros(2 * metrics.counters.size, np.int64)[::2], None):
        with pytest.raises(TypeError):
            record.record_attempt(metrics._replace(counters=wrong))  # type: ignore[arg-type]


def test_a_digest_covers_every_kernel_module_that_is_imported() -> None:
    for name in sources.with_entries():
        covered = sources.sources(name)
        for module, source in covered.items():
            package = f"{sources.PACKAGE}.{module}".rpartition(".")[0]
            for node in ast.walk(ast.parse(source)):
                if not isinstance(node, ast.ImportFrom):
                    continue
                base = node.module or ""
                if node.level:
                    above = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*above, *filter(None, [base])])
                if base.startswith(f"{sources.PACKAGE}."):
                    names = [base, *(f"{base}.{imported.name}" for imported in node.names)]
                    known = [each.removeprefix(f"{sources.PACKAGE}.") for each in names]
                    assert any(each in covered or each in sources.KEEPING for each in known), (module, base)
