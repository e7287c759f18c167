"""Compiling kernels with a bar: the first use of a version takes a while, and says so."""

from __future__ import annotations

from collections.abc import Iterable

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from replay.report.console import Console
from replay_native.ground import jit

KERNELS = (
    "ground.shared",
    "trace.order",
    "trace.dictionary",
    "trace.routes",
    "importing.common_log",
    "importing.targets",
    "ledger.hdr",
    "plan.survey",
    "http1.render",
    "ledger.record",
    "lane.loop",
)
"""Kernel modules of a replay, from the log to the lanes."""


def warm_kernels(console: Console, modules: Iterable[str] = KERNELS) -> float:
    """Compile or load kernels; with a bar where they have to be compiled. Returns seconds spent."""
    modules = list(modules)
    todo = [name for name in modules if not jit.is_compiled([name])]
    if not todo:
        return jit.warm(modules)
    if not console.is_terminal:
        console.print("compiling kernels for this machine; this happens once")
        jit.compile_apart(todo)
        return jit.warm(modules)
    bar = Progress(
        TextColumn("compiling kernels for this machine, once"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[kernel]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task("compile", total=None, kernel="")
    with bar:
        jit.compile_apart(
            todo, lambda done, total, names: bar.update(task, completed=done, total=total, kernel=names)
        )
        return jit.warm(modules)
