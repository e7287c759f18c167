"""The one decorator that sets Numba's options, the cache of compiled kernels, and the warm-up.

Every kernel is either `@kernel()` (only other kernels call it) or `@kernel("int64(...)")` (an entry: Python calls it, with
exactly this signature). `warm` compiles the entries once. Later processes load them from the cache.
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
"""How many compiled versions of one module stay in the cache."""

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": False,
    # Kernels allocate nothing, so that the arrays that they pass to each other need no reference counts.
    "_nrt": False,
    "no_cfunc_wrapper": True,
}

_entries: dict[str, list[tuple[Any, str]]] = {}
"""By module: the entries that `warm` has not compiled or loaded yet."""

_kept: dict[str, list[tuple[Any, str]]] = {}
"""By module: every entry, compiled or not."""

_warming = threading.RLock()
"""Held while kernels are compiled. A kernel cannot be called while another thread compiles it."""

_code_bytes: Counter[str] = Counter()
"""By module: the size of its kernels' bytecode. An entry counts twice, because it is also compiled as a piece."""


def _typed_alike(dispatcher: Any) -> None:
    """Let a kernel that is called with constants be compiled once, and not once for each constant."""
    call_template = dispatcher.get_call_template

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return call_template(
            tuple(map(numba.types.unliteral, args)), {k: numba.types.unliteral(v) for k, v in kws.items()}
        )

    dispatcher.get_call_template = get_call_template


def _keep_piece(dispatcher: Any, result: Any) -> None:
    """Register a compiled piece, as Numba's `add_overload` does, but without machine code for Python to call."""
    dispatcher.overloads[tuple(result.signature.args)] = result


class Piece:
    """A function that other kernels call. Numba's dispatcher is created only when a kernel that calls it is compiled.

    A command that loads its entries from a cache needs none of the several hundred dispatchers. Creating them would
    take a tenth of its start time.
    """

    def __init__(self, function: Any, options: dict[str, Any]) -> None:
        self._function, self._options = function, options
        functools.update_wrapper(self, function)

    @functools.cached_property
    def dispatcher(self) -> Any:
        """Numba's dispatcher, created at the first use."""
        piece = njit(**self._options, no_cpython_wrapper=True, pipeline_class=PieceCompiler)(self._function)
        piece._cache = KernelCache(self._function, entry=False)
        piece.add_overload = partial(_keep_piece, piece)
        _typed_alike(piece)
        return piece

    @property
    def _numba_type_(self) -> Any:
        return numba.types.Dispatcher(self.dispatcher)

    def get_call_template(self, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        """Return the dispatcher's template for a call. Numba asks for it when it types a caller."""
        return self.dispatcher.get_call_template(args, kws)

    def get_overload(self, signature: Any) -> Any:
        """Return the compiled version for a signature. Numba asks for it when it lowers a caller."""
        return self.dispatcher.get_overload(signature)

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of Numba's dispatcher, such as `py_func` or `signatures`."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.dispatcher, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Raise TypeError, because Python cannot call a piece."""
        return OnlyForKernels()(*arguments, **named)


def _entry(function: Any, options: dict[str, Any], piece: Piece) -> Any:
    """Create the function that Python calls. Kernels that call it use `piece` instead."""
    entry = njit(**options, no_cpython_wrapper=False)(function)
    entry._cache = KernelCache(function, entry=True)
    entry.get_call_template = piece.get_call_template
    entry.get_overload = piece.get_overload
    return entry


def kernel(
    signature: Any = None, *, inlined: bool = False, brief: bool = False
) -> Callable[[Function], Function]:
    """Return a decorator that makes a function a kernel, which is compiled later with the project's options.

    `signature` (in Numba's notation, or a Numba signature) makes the function an entry that Python calls.

    `inlined` makes LLVM copy the function into its callers. Use it for the small functions that a lane is composed
    of.

    `brief` makes an entry keep the interpreter lock. Use it for short calls, because getting the lock back can take a
    whole switch interval.
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
    """Import `modules`, and return their full names."""
    names = [f"{sources.PACKAGE}.{name}" for name in modules]
    for name in names:
        importlib.import_module(name)
    return names


def code_bytes(module: str) -> int:
    """Return the size of the bytecode of an imported module's kernels, which is a measure of its compile time."""
    return _code_bytes[f"{sources.PACKAGE}.{module}"]


def warm(modules: Iterable[str]) -> float:
    """Load the entries of `modules` from the package or the cache, or compile them; return the seconds that this took.

    `"lane.loop"` stands for `replay_native/lane/loop.py`. Afterwards a call with other types raises TypeError,
    instead of compiling the entry again.
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
    """Return whether every entry of an imported module is in the cache or in the package."""
    cpu = cpu_target.target_context.codegen().magic_tuple()
    entries = _kept.get(f"{sources.PACKAGE}.{module}", [])
    return all(entry._cache.is_kept(signature, cpu) for entry, signature in entries)


def is_compiled(modules: Iterable[str]) -> bool:
    """Return whether the kernels of `modules` are compiled, so that `warm` only has to load them."""
    modules = list(modules)
    return all(
        name not in _entries or is_kept(module)
        for module, name in zip(modules, imported(modules), strict=True)
    )


def are_shipped(modules: Iterable[str]) -> bool:
    """Return whether the package contains the compiled kernels of `modules`, for a CPU like this one."""
    return all(
        entry._cache.is_shipped(signature)
        for name in imported(modules)
        for entry, signature in _kept.get(name, [])
    )
