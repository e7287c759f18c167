"""How Numba compiles our kernels: pieces are only translated to LLVM's code, entries become machine code.

By default, Numba optimizes every function fully, compiles it to machine code, and then links its optimized code into
each caller, where all of it is optimized again. Our kernels are many small functions in deep call chains, and Python
calls only the entries. So a function that only kernels call stays a *piece*: typed and lowered, with its callees
linked in, but neither optimized nor compiled. LLVM optimizes all pieces of an entry together, once. That takes half
the time, and LLVM decides about inlining from the leaves upwards, as in any C compiler.
"""

from __future__ import annotations

from typing import Any, NoReturn

import llvmlite.binding as llvm
from numba.core import compiler, typed_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_machinery import register_pass


class OnlyForKernels:
    """Stands in for the machine code of a piece, which has none."""

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raise TypeError, because Python cannot call a piece."""
        raise TypeError("only kernels can call this kernel; give it a signature to call it from Python")


class PieceLibrary(JITCodeLibrary):  # type: ignore[misc]
    """The LLVM code of a piece and of everything that it calls, to be linked into its callers."""

    def finalize(self) -> None:
        """Link the callees, without optimizing and without passing the code to the execution engine."""
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._verify_declare_only_symbols()
        self._finalize_dynamic_globals()
        self._finalized = True

    def as_bitcode(self) -> bytes:
        """Return the LLVM bitcode of the piece, from which `from_bitcode` restores it."""
        return bytes(self._get_module_for_linking().as_bitcode())

    @classmethod
    def from_bitcode(cls, codegen: Any, name: str, bitcode: bytes) -> PieceLibrary:
        """Restore a piece that was read from a cache."""
        library = cls(codegen, name)
        library._final_module = library._shared_module = llvm.parse_bitcode(bitcode)
        library._finalized = True
        return library


@register_pass(mutates_CFG=True, analysis_only=False)
class _PieceLowering(typed_passes.NativeLowering):  # type: ignore[misc]
    """Numba's lowering pass without the compilation to machine code."""

    _name = "piece_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = PieceLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        state.library.finalize()
        state["cr"] = state["cr"]._replace(cfunc=OnlyForKernels())
        state.targetctx.insert_user_function(state["cr"].cfunc, state["cr"].fndesc, [state.library])
        return True


class PieceCompiler(compiler.CompilerBase):  # type: ignore[misc]
    """Numba's compiler passes, with `_PieceLowering` in place of the lowering pass."""

    def define_pipelines(self) -> list[Any]:
        """Return the only pipeline: Numba's nopython passes, with the lowering pass replaced."""
        passes = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [
            (_PieceLowering if step is typed_passes.NativeLowering else step, words)
            for step, words in passes.passes
        ]
        passes._finalized = False
        passes.finalize()
        return [passes]
