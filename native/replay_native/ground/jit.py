"""The one decorator that owns Numba's options, the kernels' cache, and the warm-up.

Every kernel is `@kernel` (called by other kernels) or `@kernel("int64(...)")` (an entry: called from Python,
with exactly this signature). `warm` compiles the entries once; the cache makes later processes load them.
"""

from __future__ import annotations

import functools
import importlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar, cast

import numba
from numba import njit
from numba.core.registry import cpu_target

from . import cache_folder, hooks, sources
from .compiler import OnlyForKernels, PieceCompiler
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

_kept: dict[str, list[tuple[Any, str]]] = {}
"""By module: every entry, compiled or not."""

_warming = threading.RLock()
"""A kernel that another thread is still compiling cannot be called: whoever needs it waits."""

_code_bytes: Counter[str] = Counter()
"""By module: how much bytecode its kernels have."""


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


class Piece:
    """A function as other kernels call it. Numba's dispatcher is made when a kernel that calls it is compiled.

    A command that loads its entries from a cache needs none of the several hundred dispatchers, and making them would
    take a tenth of its start.
    """

    def __init__(self, function: Any, options: dict[str, Any]) -> None:
        self._function, self._options = function, options
        functools.update_wrapper(self, function)

    @functools.cached_property
    def dispatcher(self) -> Any:
        """Numba's own object."""
        piece = njit(**self._options, no_cpython_wrapper=True, pipeline_class=PieceCompiler)(self._function)
        piece._cache = KernelCache(self._function, entry=False)
        piece.add_overload = partial(_keep_piece, piece)
        _typed_alike(piece)
        return piece

    @property
    def _numba_type_(self) -> Any:
        return numba.types.Dispatcher(self.dispatcher)

    def get_call_template(self, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        """The dispatcher's."""
        return self.dispatcher.get_call_template(args, kws)

    def get_overload(self, signature: Any) -> Any:
        """The dispatcher's."""
        return self.dispatcher.get_overload(signature)

    def __getattr__(self, name: str) -> Any:
        """The attributes of Numba's dispatcher: `py_func`, `signatures`."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dispatcher, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Refuse a call from Python."""
        return OnlyForKernels()(*arguments, **named)


def _entry(function: Any, options: dict[str, Any], piece: Piece) -> Any:
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
        _code_bytes[function.__module__] += len(function.__code__.co_code) * (1 + (signature is not None))
        piece = Piece(function, options)
        if signature is None:
            return cast(Function, piece)
        entry = _entry(function, options, piece)
        for entries in (_entries, _kept):
            entries.setdefault(function.__module__, []).append((entry, signature))
        return entry  # type: ignore[no-any-return]

    return decorate


def imported(modules: Iterable[str]) -> list[str]:
    """The full names of `modules`, after they were imported."""
    names = [f"{sources.PACKAGE}.{name}" for name in modules]
    for name in names:
        importlib.import_module(name)
    return names


def code_bytes(module: str) -> int:
    """How much bytecode the kernels of an imported module have: a measure of the time that compiling takes."""
    return _code_bytes[f"{sources.PACKAGE}.{module}"]


def warm(modules: Iterable[str]) -> float:
    """Compile, or load from the cache, the entries of `modules` (`"lane.loop"` is `replay_native/lane/loop.py`).

    Returns seconds spent. Afterwards a call with other types is a TypeError, not a silent compilation.
    """
    started = time.perf_counter()
    modules = list(modules)
    with _warming:
        names = imported(modules)
        if not is_compiled(modules):
            hooks.compiling(modules)
        compiled = 0
        for name in names:
            for dispatcher, signature in _entries.pop(name, []):
                dispatcher.compile(signature)
                dispatcher.disable_compile()
                compiled += bool(dispatcher._cache_misses)
        if compiled:
            cache_folder.prune(cache_folder.root(), CACHES_KEPT)
    return time.perf_counter() - started


def is_kept(module: str) -> bool:
    """Whether every entry of an imported module is in the cache, or came with the package."""
    cpu = cpu_target.target_context.codegen().magic_tuple()
    entries = _kept.get(f"{sources.PACKAGE}.{module}", [])
    return all(entry._cache.is_kept(signature, cpu) for entry, signature in entries)


def is_compiled(modules: Iterable[str]) -> bool:
    """Whether the kernels of `modules` are compiled, so that `warm` only loads them."""
    modules = list(modules)
    return all(
        name not in _entries or is_kept(module)
        for module, name in zip(modules, imported(modules), strict=True)
    )


def are_shipped(modules: Iterable[str]) -> bool:
    """Whether the kernels of `modules` came compiled with the package, for a CPU like this one."""
    return all(
        entry._cache.is_shipped(signature)
        for name in imported(modules)
        for entry, signature in _kept.get(name, [])
    )
