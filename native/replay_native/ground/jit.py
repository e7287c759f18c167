"""The one decorator that owns Numba's options, the kernels' cache, and the warm-up.

Every kernel is `@kernel` (called by other kernels) or `@kernel("int64(...)")` (an entry: called from Python,
with exactly this signature). `warm` compiles the entries once; the cache makes later processes load them.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import numba
from numba import njit
from numba.core.registry import cpu_target

from . import cache_folder, sources
from .compiler import PieceCompiler
from .kernel_cache import KernelCache

Function = TypeVar("Function", bound=Callable[..., Any])

CACHES_KEPT = 8
"""Compiled versions of one module that stay in the cache."""

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": False,
    # Kernels allocate nothing: no reference counts are kept on the arrays they pass around.
    "_nrt": False,
    "no_cfunc_wrapper": True,
}

_entries: dict[str, list[tuple[Any, str]]] = {}
"""By module: the entries that `warm` has yet to compile."""

_before_compiling: list[Callable[[], None]] = []
"""What `warm` calls, once, when it finds kernels that have to be compiled."""


def _typed_alike(dispatcher: Any) -> None:
    """Let kernels that are called with constants be compiled once, not for each constant."""
    call_template = dispatcher.get_call_template

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return call_template(
            tuple(map(numba.types.unliteral, args)), {k: numba.types.unliteral(v) for k, v in kws.items()}
        )

    dispatcher.get_call_template = get_call_template


def _keep_piece(dispatcher: Any, result: Any) -> None:
    """Numba's `add_overload`, without the machine code that Python would call."""
    dispatcher.overloads[tuple(result.signature.args)] = result


def _piece(function: Any, options: dict[str, Any]) -> Any:
    """A function as other kernels call it."""
    piece = njit(**options, no_cpython_wrapper=True, pipeline_class=PieceCompiler)(function)
    piece._cache = KernelCache(function, entry=False)
    piece.add_overload = partial(_keep_piece, piece)
    _typed_alike(piece)
    return piece


def _entry(function: Any, options: dict[str, Any], piece: Any) -> Any:
    """A function as Python calls it. A kernel that calls it gets the piece."""
    entry = njit(**options, no_cpython_wrapper=False)(function)
    entry._cache = KernelCache(function, entry=True)
    entry.get_call_template = piece.get_call_template
    entry.get_overload = piece.get_overload
    return entry


def kernel(
    signature: Any = None, *, inlined: bool = False, brief: bool = False
) -> Callable[[Function], Function]:
    """Compile a function with the project's options.

    `signature` (in Numba's notation, or a Numba signature) makes it an entry that Python calls. `inlined` has LLVM
    copy it into its callers: for the small pieces that a lane is composed of. A `brief` entry keeps the interpreter's
    lock: who lets go of it may have to wait a switch interval for it.
    """

    def decorate(function: Function) -> Function:
        options = dict(_OPTIONS, nogil=not brief, forceinline=inlined)
        piece = _piece(function, options)
        if signature is None:
            return piece  # type: ignore[no-any-return]
        entry = _entry(function, options, piece)
        _entries.setdefault(function.__module__, []).append((entry, signature))
        return entry  # type: ignore[no-any-return]

    return decorate


def before_compiling(prepare: Callable[[], None]) -> None:
    """Have `prepare` called once, before `warm` compiles anything: a command shows its progress there."""
    _before_compiling[:] = [prepare]


def _imported(modules: Iterable[str]) -> list[str]:
    """The full names of `modules`, after they were imported."""
    names = [f"{sources.PACKAGE}.{name}" for name in modules]
    for name in names:
        importlib.import_module(name)
    return names


def warm(modules: Iterable[str]) -> float:
    """Compile, or load from the cache, the entries of `modules` (`"lane.loop"` is `replay_native/lane/loop.py`).

    Returns seconds spent. Afterwards a call with other types is a TypeError, not a silent compilation.
    """
    started = time.perf_counter()
    names = _imported(modules)
    if _before_compiling and not all(map(_is_kept, names)):
        _before_compiling.pop()()
    todo = [entry for name in names for entry in _entries.pop(name, [])]
    compiled = 0
    for dispatcher, signature in todo:
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        compiled += bool(dispatcher._cache_misses)
    if compiled:
        cache_folder.prune(cache_folder.root(), CACHES_KEPT)
    return time.perf_counter() - started


def _is_kept(name: str) -> bool:
    codegen = cpu_target.target_context.codegen()
    return all(entry._cache.is_kept(signature, codegen.magic_tuple()) for entry, signature in _entries.get(name, []))


def is_compiled(modules: Iterable[str]) -> bool:
    """Whether the kernels of `modules` were compiled before, so that `warm` only loads them."""
    return all(_is_kept(name) for name in _imported(modules))
