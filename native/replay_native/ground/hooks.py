"""Hooks for programs that want to know about kernels without importing Numba."""

from __future__ import annotations

from collections.abc import Callable

_prepare: list[Callable[[list[str]], None]] = []


def before_compiling(prepare: Callable[[list[str]], None]) -> None:
    """Have `prepare(modules)` called once, before a kernel is compiled: a command shows its progress there."""
    _prepare[:] = [prepare]


def compiling(modules: list[str]) -> None:
    """Report that kernels of `modules` must be compiled, to the function that was registered."""
    while _prepare:
        _prepare.pop()(modules)
