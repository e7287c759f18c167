"""The CPU that kernels are compiled for: that of this machine, or a baseline that many machines meet."""

from __future__ import annotations

import os
import platform

import llvmlite.binding as llvm

_V1 = ("cmov", "cx8", "fxsr", "mmx", "sse", "sse2")
_V2 = ("crc32", "cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")

BASELINES = {"x86-64-v3": (*_V1, *_V2, *_V3), "x86-64": _V1}
"""The CPU features that each baseline requires, by LLVM's names. The best baseline is first."""

_FEATURES = "NUMBA_CPU_FEATURES"


def settings_for(baseline: str) -> dict[str, str]:
    """Return the environment variables that make Numba compile for a baseline."""
    return {"NUMBA_CPU_NAME": baseline, _FEATURES: ",".join(f"+{name}" for name in BASELINES[baseline])}


def features() -> set[str]:
    """Return the CPU features that kernels are compiled for, by LLVM's names. Kernels must not require others."""
    if (chosen := os.environ.get(_FEATURES)) is not None:
        return {word.removeprefix("+") for word in chosen.split(",") if word.startswith("+")}
    return {name for name, there in llvm.get_host_cpu_features().items() if there}


def baselines_met() -> list[str]:
    """Return the baselines that this CPU meets, the best one first.

    If `NUMBA_CPU_NAME` selects a CPU, only the baseline of that name is returned; `generic` is x86-64. The list is
    empty when the machine is not x86-64.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    if chosen := os.environ.get("NUMBA_CPU_NAME"):
        return ["x86-64"] if chosen == "generic" else [name for name in BASELINES if name == chosen]
    found = llvm.get_host_cpu_features()
    return [name for name, needed in BASELINES.items() if all(found.get(word, True) for word in needed)]
