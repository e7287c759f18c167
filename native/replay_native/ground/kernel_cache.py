"""Compiled kernels as files: one for each kernel and signature, verified before use.

The folder's name contains a digest of the sources, and a file's name a digest of the types and the CPU. So a kernel
compiled for other sources, types or CPUs is never found. Each file begins with a digest of its content. A truncated
or changed file is reported once, and its kernel is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import secrets
from typing import Any

from numba.core import compiler, sigutils
from numba.core.caching import _Cache
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

from . import cache_folder, shipped, sources
from .compiler import OnlyForKernels, PieceLibrary

DIGEST_BYTES = 32
SUFFIX = ".kernel"
ENTRY, PIECE = "entry", "piece"
"""The last part of a kernel's label in its file's name: Python calls an entry, kernels call a piece."""


def sealed(content: bytes) -> bytes:
    """Return `content` preceded by its digest."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest() + content


def opened(found: bytes) -> bytes | None:
    """Return the content of what `sealed` returned, or None if it was truncated or changed."""
    content = found[DIGEST_BYTES:]
    if len(found) > DIGEST_BYTES and sealed(content) == found:
        return content
    return None


class KernelCache(_Cache):  # type: ignore[misc]
    """The cache of one function's compiled versions, which are looked up in the package, then in the user's folders."""

    def __init__(self, function: Any, *, entry: bool) -> None:
        self._digest = sources.digest_of(function.__module__, function.__code__.co_filename)
        kind = ENTRY if entry else PIECE
        self._label = f"{function.__qualname__}-{function.__code__.co_firstlineno}-{kind}"

    def _name(self, arguments: tuple[Any, ...], cpu: tuple[str, ...]) -> str:
        key = "\n".join([*map(str, arguments), *map(str, cpu)]).encode()
        return f"{self._label}-{hashlib.blake2b(key, digest_size=8).hexdigest()}{SUFFIX}"

    def is_shipped(self, signature: Any) -> bool:
        """Return whether the package contains a version for these types."""
        arguments, _ = sigutils.normalize_signature(signature)
        packed = shipped.found()
        return packed is not None and packed.has(self._digest, self._name(arguments, packed.cpu))

    def is_kept(self, signature: Any, cpu: tuple[str, ...]) -> bool:
        """Return whether a version for these types is in the package or the cache, and need not be compiled."""
        if self.is_shipped(signature):
            return True
        arguments, _ = sigutils.normalize_signature(signature)
        name = self._name(arguments, cpu)
        return any((place / self._digest / name).is_file() for place in cache_folder.places())

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        """Return the compiled version for these types, or None if there is none."""
        arguments, _ = sigutils.normalize_signature(signature)
        # Numba's own method refreshes its whole context here, which takes 0.2 s. Compiled code needs only the symbols
        # of Numba's runtime.
        rtsys.initialize(target_context)
        packed = shipped.found()
        content = packed and packed.read(self._digest, self._name(arguments, packed.cpu))
        if not content:
            content = self._read(self._name(arguments, target_context.codegen().magic_tuple()))
        return _rebuilt(target_context, pickle.loads(content)) if content else None

    def _read(self, name: str) -> bytes | None:
        for place in cache_folder.places():
            try:
                content = opened((place / self._digest / name).read_bytes())
            except OSError:
                continue
            if content is not None:
                return content
            cache_folder.say_once(f"compiled kernels in {place} are damaged: they are compiled again")
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Store a compiled version. If that fails, report it once and continue."""
        if result.library.has_dynamic_globals:
            # The code contains addresses that are valid only in this process.
            return
        arguments, _ = sigutils.normalize_signature(signature)
        folder = cache_folder.root() / self._digest
        path = folder / self._name(arguments, result.target_context.codegen().magic_tuple())
        beside = path.with_name(f"{path.name}.tmp.{secrets.token_hex(4)}")
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            beside.write_bytes(sealed(dumps(_reduced(result))))
            beside.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
            cache_folder.say_once(
                f"compiled kernels cannot be kept in {cache_folder.root()} ({error.strerror}): the next command"
                " compiles them again (set REPLAY_CACHE to a writable folder with free space)"
            )

    @property
    def cache_path(self) -> str:
        """The folder in which newly compiled kernels of this version of the sources are stored."""
        return os.fspath(cache_folder.root() / self._digest)

    def enable(self) -> None:
        """Do nothing, because a kernel is always cached."""

    def disable(self) -> None:
        """Do nothing, because a kernel is always cached."""

    def flush(self) -> None:
        """Do nothing, because versions for other sources or types are never found."""


def _reduced(result: Any) -> tuple[Any, ...]:
    """Return a compile result as data that can be pickled.

    Of an entry only the machine code is kept, because it is never linked into another kernel.
    """
    library, described = result.library, result.fndesc
    described.typemap = described.calltypes = None
    if isinstance(library, PieceLibrary):
        return (library.name, library.as_bitcode(), None, described, result.signature, result.environment, ())
    symbols = [
        value.name
        for values in (library._final_module.functions, library._final_module.global_variables)
        for value in values
        if not value.is_declaration
    ]
    # Numba lists hundreds of environments. Only those that contain Python objects are needed.
    referenced = tuple(found for found in result._find_referenced_environments() if found.consts)
    code = library._get_compiled_object()
    return (library.name, code, symbols, described, result.signature, result.environment, referenced)


def _rebuilt(target_context: Any, reduced: tuple[Any, ...]) -> Any:
    """Restore a compile result from what `_reduced` returned."""
    name, code, symbols, described, signature, environment, referenced = reduced
    codegen = target_context.codegen()
    if symbols is None:
        library = PieceLibrary.from_bitcode(codegen, name, code)
        entry_point: Any = OnlyForKernels()
    else:
        library = codegen.create_library(name)
        library.enable_object_caching()
        library._set_compiled_object(code)
        library._finalize_final_module()
        codegen._engine._defined_symbols.update(symbols)
        entry_point = target_context.get_executable(library, described, environment)
        for other in referenced:
            codegen.set_env(other.env_name, other)
    return compiler.compile_result(
        target_context=target_context,
        typing_context=target_context.typing_context,
        library=library,
        environment=environment,
        entry_point=entry_point,
        fndesc=described,
        type_annotation="",
        signature=signature,
        objectmode=False,
        lifted=(),
        reload_init=(),
        referenced_envs=referenced,
    )
