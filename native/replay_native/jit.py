"""The one decorator that owns Numba's options, the kernels' cache, and the warm-up.

Every kernel is `@kernel` (called by other kernels) or `@kernel("int64(...)")` (an entry: called from Python,
with exactly this signature). `warm` compiles the entries once; the cache makes later processes load them.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

# Absolute, so that the digest of kernels leaves it out: where they are kept changes nothing in them.
from replay_native.cache_folder import cache_root, prune

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


_IMPORT = re.compile(r"^from \.(\w*) import (.+)$", re.MULTILINE)
_ENTRY = re.compile(rb"^@kernel\((?!\)|inlined)", re.MULTILINE)


def _sources(name: str, found: dict[str, bytes]) -> dict[str, bytes]:
    """The source of kernel module `name` and of every kernel module that it imports, however deep."""
    path = Path(__file__).with_name(f"{name}.py")
    if name not in found and path.exists():
        found[name] = path.read_bytes()
        for module, imported in _IMPORT.findall(found[name].decode()):
            for other in [module] if module else re.findall(r"\w+", imported):
                _sources(other, found)
    return found


@functools.cache
def _digest(name: str) -> str:
    """Name what a module's kernels depend on: a cached caller does not notice that its callee's file changed."""
    digest = hashlib.blake2b(digest_size=8)
    for module, source in sorted(_sources(name, {}).items()):
        digest.update(module.encode() + b"\0" + source)
    boundscheck = os.environ.get("NUMBA_BOUNDSCHECK", "0")
    digest.update(f"{numba.__version__} {platform.python_version()} {boundscheck}".encode())
    return f"{name}-{digest.hexdigest()}"


CACHE_ROOT = cache_root()
"""Has a folder for each version of each kernel module."""


class _ByDigest(_CacheLocator):  # type: ignore[misc]
    """Finds a kernel's cache by the digest of its sources, wherever the checkout lies and whenever it was written."""

    def __init__(self, module: str, line: int) -> None:
        self._digest, self._line = _digest(module), str(line)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _ByDigest:
        """Numba's way to make a locator."""
        return cls(py_func.__module__.rpartition(".")[2], py_func.__code__.co_firstlineno)

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
    """Compile, or load from the cache, the entries of `modules` (`"lane"` is `replay_native.lane`).

    `progress(done, total, name)` is called before each. Returns seconds spent. Afterwards a call with other types is
    a TypeError, not a silent compilation.
    """
    started = time.perf_counter()
    names = [f"{__package__}.{name}" for name in modules]
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
    sources = {name: _sources(name, {}) for name in asked}
    for parts in list(sources.values()):
        sources.update({part: _sources(part, {}) for part in parts if _ENTRY.search(parts[part])})
    waiting = sorted(sources, key=lambda name: sum(map(len, sources[name].values())))
    total, at_once = len(waiting), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop()
                if name not in asked and not any(name in sources[other] for other in running):
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
    return all(any((CACHE_ROOT / _digest(name)).glob("*.nbi")) for name in modules)
