"""Hooks for programs that want to know when kernels are compiled, without importing Numba."""

from __future__ import annotations

from collections.abc import Callable

_prepare: list[Callable[[list[str]], None]] = []


def before_compiling(prepare: Callable[[list[str]], None]) -> None:
    """Register `prepare(modules)`, which is called once, before the first kernel is compiled.

    It replaces a function that was registered before. A command uses it to show the progress.
    """
    _prepare[:] = [prepare]


def compiling(modules: list[str]) -> None:
    """Call the registered function with `modules`, at least one of which is not compiled, and forget the function."""
    while _prepare:
        _prepare.pop()(modules)
