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
    """Call and forget the registered function, if there is one. At least one of `modules` is not compiled."""
    while _prepare:
        _prepare.pop()(modules)
