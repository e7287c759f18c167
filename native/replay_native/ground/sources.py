"""Where the kernel modules are, and on which sources each depends.

A kernel module is identified by its path below the package: `lane.loop` is `replay_native/lane/loop.py`. A compiled
kernel contains the kernels that it calls, and Numba does not notice when a callee's file changes. So a module's
digest covers the sources of everything that it imports.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import llvmlite
import numba

PACKAGE = __name__.rpartition(".")[0].rpartition(".")[0]
"""The package whose modules are kernel modules."""

KEEPING = {
    f"ground.{name}" for name in ("sources", "cache_folder", "kernel_cache", "shipped", "parallel", "hooks")
}
"""Modules that decide where compiled kernels are stored.

They do not affect the kernels, so they are left out of the digests.
"""

_ROOT = Path(__file__).parents[1]
_IMPORT = re.compile(rb"^from (\.+|%b\b\.?)([\w.]*) import (\([^)]*\)|.+)$" % PACKAGE.encode(), re.MULTILINE)
_ENTRY = re.compile(rb"^@kernel\((?!\)|inlined)", re.MULTILINE)


def with_entries() -> tuple[str, ...]:
    """Return the names of the modules that have entries, which are kernels with a declared signature."""
    paths = (path for path in _ROOT.glob("*/*.py") if _ENTRY.search(path.read_bytes()))
    return tuple(sorted(f"{path.parent.name}.{path.stem}" for path in paths))


def has_entries(name: str) -> bool:
    """Return whether module `name` has kernels that Python calls."""
    return _ENTRY.search(sources(name)[name]) is not None


@functools.cache
def sources(name: str) -> dict[str, bytes]:
    """Return the sources of module `name` and of every kernel module that it imports, directly or indirectly."""
    found: dict[str, bytes] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module not in found and module not in KEEPING and (source := _source(module)) is not None:
            found[module] = source
            waiting += _imports(module)
    return found


@functools.cache
def _source(name: str) -> bytes | None:
    """Return the source of a module, or None if there is no module of this name."""
    path = _path(name)
    return path.read_bytes() if path.is_file() else None


@functools.cache
def _imports(name: str) -> tuple[str, ...]:
    """Return the kernel modules that a module imports directly."""
    return tuple(found for found in _imported(name, _source(name) or b"") if _source(found) is not None)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that compiled kernels depend on besides their sources and the CPU, by name."""
    return {
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "Python": str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag),
    }


@functools.cache
def digest(name: str) -> str:
    """Return the folder name of a module's compiled kernels.

    It changes with their sources, with `versions`, and with the setting of Numba's bounds checks.
    """
    hashed = hashlib.blake2b(digest_size=8)
    for module, source in sorted(sources(name).items()):
        hashed.update(module.encode() + b"\0" + source)
    hashed.update(" ".join([*versions().values(), os.environ.get("NUMBA_BOUNDSCHECK", "0")]).encode())
    return f"{name}-{hashed.hexdigest()}"


def digest_of(module: str, file: str) -> str:
    """Return `digest` of the module whose `__name__` is `module`.

    The module may be outside of the package, such as one with kernels of tests and benchmarks. Then `file` is its
    source.
    """
    if module.startswith(f"{PACKAGE}."):
        return digest(module.removeprefix(f"{PACKAGE}."))
    source = Path(file).read_bytes()
    hashed = hashlib.blake2b(source, digest_size=8)
    for name in sorted({"ground.jit", *_imported("", source)}):
        if _path(name).is_file():
            hashed.update(digest(name).encode())
    return f"{module}-{hashed.hexdigest()}"


def _path(name: str) -> Path:
    return _ROOT.joinpath(*name.split(".")).with_suffix(".py")


def _imported(name: str, source: bytes) -> Iterator[str]:
    """Yield the names in this package that a module's import statements may refer to. Some are not modules.

    The statements are found by a regular expression, because parsing all sources would add a tenth of a second to
    every start.
    """
    package = name.split(".")[:-1]
    for start, module, imported in _IMPORT.findall(source):
        above = package[: len(package) - len(start) + 1] if start.startswith(b".") else []
        base = [*above, *filter(None, module.decode().split("."))]
        yield ".".join(base)
        yield from (".".join([*base, word]) for word in re.findall(r"\w+", imported.decode()))
