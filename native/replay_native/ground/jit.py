"""The one decorator that owns Numba's options, the kernels' cache, and the warm-up.

Every kernel is `@kernel` (called by other kernels) or `@kernel("int64(...)")` (an entry: called from Python,
with exactly this signature). `warm` compiles the entries once; the cache makes later processes load them.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numba
from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

# Absolute, so that the digest of kernels leaves them out: where kernels are kept changes nothing in them.
from . import sources
from .cache_folder import cache_root, prune

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


CACHE_ROOT = cache_root()
"""Has a folder for each version of each kernel module."""


class _ByDigest(_CacheLocator):  # type: ignore[misc]
    """Finds a kernel's cache by the digest of its sources, wherever the checkout lies and whenever it was written."""

    def __init__(self, digest: str, line: int) -> None:
        self._digest, self._line = digest, str(line)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _ByDigest:
        """Numba's way to make a locator."""
        return cls(sources.digest_of(py_func.__module__, py_file), py_func.__code__.co_firstlineno)

    def get_cache_path(self) -> str:
        """The folder of this version of the module."""
        return str(CACHE_ROOT / self._digest)

    def get_source_stamp(self) -> str:
        """What must be equal for a cached kernel to be used."""
        return self._digest

    def get_disambiguator(self) -> str:
        """Tells apart kernels of one name in a module."""
        return self._line


class _KernelCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_ByDigest]  # noqa: RUF012


class _KernelCache(FunctionCache):  # type: ignore[misc]
    _impl_class = _KernelCacheImpl


def _typed_alike(dispatcher: Any) -> None:
    """Let kernels that are called with constants be compiled once, not for each constant."""
    call_template = dispatcher.get_call_template

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return call_template(
            tuple(map(numba.types.unliteral, args)), {k: numba.types.unliteral(v) for k, v in kws.items()}
        )

    dispatcher.get_call_template = get_call_template


def kernel(
    signature: Any = None, *, inlined: bool = False, brief: bool = False
) -> Callable[[Function], Function]:
    """Compile a function with the project's options.

    `signature` (in Numba's notation, or a Numba signature) makes it an entry that Python calls. `inlined` has LLVM
    copy it into its callers: for the small pieces that a lane is composed of. A `brief` entry keeps the interpreter's
    lock: who lets go of it may have to wait a switch interval for it.
    """

    def decorate(function: Function) -> Function:
        options = dict(_OPTIONS, nogil=not brief, forceinline=inlined, no_cpython_wrapper=signature is None)
        dispatcher = njit(**options)(function)
        dispatcher._cache = _KernelCache(function)
        _typed_alike(dispatcher)
        if signature is not None:
            _entries.setdefault(function.__module__, []).append((dispatcher, signature))
        return dispatcher  # type: ignore[no-any-return]

    return decorate


def warm(modules: Iterable[str], progress: Callable[[int, int, str], None] | None = None) -> float:
    """Compile, or load from the cache, the entries of `modules` (`"lane.loop"` is `replay_native/lane/loop.py`).

    `progress(done, total, name)` is called before each. Returns seconds spent. Afterwards a call with other types is
    a TypeError, not a silent compilation.
    """
    started = time.perf_counter()
    names = [f"{sources.PACKAGE}.{name}" for name in modules]
    for name in names:
        importlib.import_module(name)
    todo = [entry for name in names for entry in _entries.pop(name, [])]
    for done, (dispatcher, signature) in enumerate(todo):
        if progress is not None:
            progress(done, len(todo), dispatcher.py_func.__name__)
        # Also where a caller among the kernels had it compiled before: only now is a call with other types an error.
        dispatcher.compile(signature)
        dispatcher.disable_compile()
    if todo:
        prune(CACHE_ROOT, CACHES_KEPT)
    return time.perf_counter() - started


def compile_apart(modules: Iterable[str], progress: Callable[[int, int, str], None] | None = None) -> None:
    """Fill the cache for `modules` from a process for each, as many at once as there are cores: for the first use.

    Beside a large module goes what it imports, where that has entries of its own: it then finds those parts done.
    `progress(done, total, names)` is called as they go. What fails here is left to `warm`, which says why.
    """
    asked = set(modules)
    parts = {part for name in asked for part in sources.sources(name) if sources.has_entries(part)}
    depends_on = {name: sources.sources(name) for name in asked | parts}
    waiting = sorted(depends_on, key=lambda name: sum(map(len, depends_on[name].values())))
    total, at_once = len(waiting), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop()
                if name not in asked and not any(name in depends_on[other] for other in running):
                    continue
                code = f"from {__package__} import jit; jit.warm(['{name}'])"
                running[name] = subprocess.Popen(
                    [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
            if progress is not None:
                progress(total - len(waiting) - len(running), total, ", ".join(running))
            time.sleep(0.05)
            running = {name: process for name, process in running.items() if process.poll() is None}
    finally:
        # An interrupt leaves no compiler behind.
        for process in running.values():
            process.kill()
            process.wait()


def is_compiled(modules: Iterable[str]) -> bool:
    """Whether the kernels of `modules` were compiled before, so that `warm` only loads them."""
    return all(any((CACHE_ROOT / sources.digest(name)).glob("*.nbi")) for name in modules)
