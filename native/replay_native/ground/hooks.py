"""What a program wants to know of kernels, without importing Numba to say so."""

from __future__ import annotations

from collections.abc import Callable

_prepare: list[Callable[[list[str]], None]] = []


def before_compiling(prepare: Callable[[list[str]], None]) -> None:
    """Have `prepare(modules)` called once, before a kernel is compiled: a command shows its progress there."""
    _prepare[:] = [prepare]


def compiling(modules: list[str]) -> None:
    """Kernels of `modules` have to be compiled: call what was asked for."""
    while _prepare:
        _prepare.pop()(modules)
