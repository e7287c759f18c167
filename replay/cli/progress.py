"""Compiles the kernels that this and later commands are likely to need, all at once, and shows the progress."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from replay_native.ground import cache_folder, hooks, jit, parallel, sources

OF_A_PLAN = (
    "ground.shared",
    "trace.order",
    "trace.dictionary",
    "trace.routes",
    "importing.common_log",
    "importing.targets",
    "ledger.hdr",
    "plan.survey",
)
"""Kernel modules that every plan needs, from the log to its rows. `kernels_of` lists those that a target adds."""

KERNELS = (*OF_A_PLAN, "ledger.record")
"""Kernel modules that every replay needs, from the log to the accounts. `kernels_of` lists those of its targets."""

_SELDOM = ("kafka.", "staging.")
"""Packages whose kernels are compiled only when a command needs them."""

LINE_EVERY_S = 5.0
"""The least number of seconds between two lines about the progress if there is no terminal."""

_TEXT = "compiling kernels for this machine, once"
_LEFT_FROM_SHARE = 0.03
"""The share of the work that must be done before the remaining time is estimated."""


def usual_kernels() -> list[str]:
    """Return the kernel modules that commands usually need."""
    return [name for name in sources.with_entries() if not name.startswith(_SELDOM)]


def warm_kernels(console: Console, modules: Iterable[str] = KERNELS) -> float:
    """Compile or load kernels, and return the seconds that `jit.warm` took.

    If one of the modules has to be compiled, all usual modules are compiled, too.
    """
    modules = list(modules)
    if not jit.is_compiled(modules):
        compile_kernels(console, modules)
    return jit.warm(modules)


def compile_kernels(console: Console, modules: Iterable[str] = ()) -> None:
    """Compile `modules` and the usual ones into the cache, unless they are there already."""
    # The command's hook calls this function. Compiling below must not call it again, so the hook is replaced.
    hooks.before_compiling(lambda _: None)
    todo = [
        name
        for name in {**dict.fromkeys(modules), **dict.fromkeys(usual_kernels())}
        if not jit.is_compiled([name])
    ]
    if not todo:
        return
    with _shown(console) as progress:
        whole = parallel.compile_apart(todo, progress)
    if not whole:
        console.print(
            "a compiling process failed: this process compiles the missing kernels, which takes a minute or two",
            soft_wrap=True,
        )


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Callable[[float, list[str]], None]]:
    """Show a progress bar on a terminal, otherwise a line every few seconds. Also print where the cache is."""
    started = time.monotonic()
    where = f"(kept in {cache_folder.root()})"
    if not console.is_terminal:
        console.print(f"{_TEXT} {where}", soft_wrap=True)
        reported_s = started

        def line(share: float, _modules: list[str]) -> None:
            nonlocal reported_s
            now = time.monotonic()
            if now - reported_s >= LINE_EVERY_S:
                reported_s = now
                console.print(f"{_TEXT}: {share:.0%}{left_text(share, now - started)}", soft_wrap=True)

        yield line
        return
    columns = (TextColumn(_TEXT), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("compile", total=1.0, left="")
        yield lambda share, _modules: bar.update(
            task, completed=share, left=left_text(share, time.monotonic() - started).removeprefix(", ")
        )
    console.print(
        f"compiled kernels in {time.monotonic() - started:.0f} s {where}", style="dim", soft_wrap=True
    )


def left_text(share: float, elapsed_s: float) -> str:
    """Return text such as `, about 20 s left`; empty while it cannot be estimated."""
    if share < _LEFT_FROM_SHARE:
        return ""
    left_s = elapsed_s * (1 - share) / share
    return f", about {max(5 * round(left_s / 5), 1)} s left"
