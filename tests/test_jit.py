"""Kernels are compiled for the types that they declare, in whatever order modules are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

AFTER_ITS_CALLER = """
from replay_native import jit
jit.warm(["recordbatch"])
jit.warm(["crc32c"])
from replay_native import crc32c
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
