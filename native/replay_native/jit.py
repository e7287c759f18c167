"""The one decorator that owns Numba's options, the kernels' cache, and the warm-up.

Every kernel is `@kernel` (called by other kernels) or `@kernel("int64(...)")` (an entry: called from Python,
with exactly this signature). `warm` compiles the entries once; the cache makes later processes load them.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

CACHES_KEPT = 4
"""Kernel caches of other versions that stay beside the current one."""

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    "fastmath": False,
}

_entries: dict[str, list[tuple[Any, str]]] = {}


def _digest() -> str:
    """Name what a compiled kernel depends on: a cached caller does not notice that its callee's file changed."""
    digest = hashlib.blake2b(digest_size=10)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    boundscheck = os.environ.get("NUMBA_BOUNDSCHECK", "0")
    digest.update(f"{numba.__version__} {platform.python_version()} {boundscheck}".encode())
    return digest.hexdigest()


def _private_folder(path: Path) -> bool:
    """Make `path` a folder that only this user can write to; False where that can't be had."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = path.stat()
        if stat.st_uid != os.getuid():
            return False
        path.chmod(0o700)
    except OSError:
        return False
    return os.access(path, os.W_OK)


def _cache_folder() -> Path:
    """The user's own cache of compiled kernels, or a fresh private one where there is no such place."""
    base = os.environ.get("REPLAY_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    root = Path(base).expanduser() / "replay" / "kernels"
    if not _private_folder(root):
        root = Path(tempfile.gettempdir()) / f"replay-kernels-{os.getuid()}"
        if not _private_folder(root):
            root = Path(tempfile.mkdtemp(prefix="replay-kernels-"))
    return root / _digest()


def _prune(root: Path, keep: Path) -> None:
    """Remove the caches of versions long gone."""
    try:
        others = sorted((p for p in root.iterdir() if p != keep), key=lambda p: p.stat().st_mtime)
    except OSError:
        return
    for old in others[:-CACHES_KEPT]:
        shutil.rmtree(old, ignore_errors=True)


CACHE_FOLDER = _cache_folder()
numba.config.CACHE_DIR = str(CACHE_FOLDER)  # type: ignore[attr-defined]


def kernel(signature: str | None = None, *, inlined: bool = False) -> Callable[[Function], Function]:
    """Compile a function with the project's options.

    `signature` (Numba's notation) makes it an entry that Python calls. `inlined` has LLVM copy it into its callers:
    for the small pieces that a lane is composed of.
    """

    def decorate(function: Function) -> Function:
        options = dict(_OPTIONS, forceinline=True) if inlined else _OPTIONS
        dispatcher = njit(**options)(function)
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
    todo = [entry for name in names for entry in _entries.get(name, [])]
    for done, (dispatcher, signature) in enumerate(todo):
        if progress is not None:
            progress(done, len(todo), dispatcher.py_func.__name__)
        if not dispatcher.signatures:
            dispatcher.compile(signature)
            dispatcher.disable_compile()
    _prune(CACHE_FOLDER.parent, CACHE_FOLDER)
    return time.perf_counter() - started


def is_compiled() -> bool:
    """Whether this version's kernels were compiled before (by this user, on this kind of CPU or another)."""
    return any(CACHE_FOLDER.glob("**/*.nbi"))
