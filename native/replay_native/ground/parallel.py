"""Fill the cache from several processes: for the first use, when all kernels have to be compiled.

Each core gets a process, and each process one module after the other, the largest first; Numba and the pieces that
modules share are loaded once in each. A process reports every kernel that it has compiled. Progress is measured in bytes
of bytecode: a kernel takes 1.2 to 3.3 s for 10,000 of them, whatever module it is in.
"""

from __future__ import annotations

import contextlib
import gc
import os
import selectors
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import jit, sources

Progress = Callable[[float, list[str]], None]
"""Is called with the share that is done, and the modules that are being compiled."""

LOOK_S = 0.25
"""Progress is reported at least so often."""

_COMPILED, _DONE, _FAILED = "compiled", "done", "failed"


class _Tally:
    """How much of the bytecode is compiled."""

    def __init__(self, modules: Iterable[str]) -> None:
        needed = {part for name in modules for part in sources.sources(name)}
        self._bytes = {part: jit.code_bytes(part) for part in needed}
        self._done: Counter[str] = Counter()
        self._total = max(sum(self._bytes.values()), 1)

    def add(self, part: str, size: int) -> None:
        """A kernel of a module was compiled. Some are compiled for several types: a module is never more than done."""
        self._done[part] = min(self._done[part] + size, self._bytes.get(part, 0))

    def finish(self, name: str) -> None:
        """A module is compiled, also those of its kernels that were in the cache."""
        self._done[name] = self._bytes.get(name, 0)

    def share(self) -> float:
        """From 0 to 1."""
        return sum(self._done.values()) / self._total


class _Worker:
    """A process that compiles what it is given."""

    def __init__(self) -> None:
        self.module = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.parallel"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        self._begun = b""

    def give(self, module: str) -> None:
        """Have it compile a module."""
        self.module = module
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{module}\n".encode())
            self.process.stdin.flush()

    def reports(self) -> Iterator[list[str]]:
        """The reports since the last call; `failed` if the process has ended."""
        assert self.process.stdout is not None
        found = self.process.stdout.read()
        if found == b"":
            yield [_FAILED]
            return
        *lines, self._begun = (self._begun + (found or b"")).split(b"\n")
        for line in lines:
            yield line.decode().split()

    def end(self) -> None:
        """Leave no compiler behind."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()


def compile_apart(modules: Iterable[str], progress: Progress | None = None) -> bool:
    """Fill the cache for `modules`. False if a process failed; `warm` then reports why, or compiles here."""
    asked = list(dict.fromkeys(modules))
    jit.imported(asked)
    tally = _Tally(asked)
    waiting = sorted(asked, key=_bytes_needed)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    workers = [_Worker() for _ in range(min(cores, len(waiting)))]
    try:
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                assert worker.process.stdout is not None
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
                worker.give(waiting.pop())
            while any(worker.module for worker in workers):
                for key, _ in selector.select(LOOK_S):
                    for what, *words in key.data.reports():
                        if what == _FAILED:
                            return False
                        if what == _COMPILED:
                            tally.add(words[0], int(words[1]))
                            continue
                        tally.finish(words[0])
                        key.data.module = ""
                        if waiting:
                            key.data.give(waiting.pop())
                if progress is not None:
                    progress(tally.share(), [worker.module for worker in workers if worker.module])
        return True
    finally:
        # This also runs after an interrupt.
        for worker in workers:
            worker.end()


def _bytes_needed(name: str) -> int:
    return sum(map(jit.code_bytes, sources.sources(name)))


def _report_compiled() -> None:
    """Have Numba's events printed as they end."""
    from numba.core import event

    class Reporter(event.Listener):  # type: ignore[misc]
        def on_start(self, _event: Any) -> None:
            pass

        def on_end(self, ended: Any) -> None:
            function = ended.data["dispatcher"].py_func
            module = function.__module__.removeprefix(f"{sources.PACKAGE}.")
            print(_COMPILED, module, len(function.__code__.co_code), flush=True)

    event.register("numba:compile", Reporter())


def main() -> None:
    """A worker: compile each module that a line names."""
    _report_compiled()
    # Numba makes many small objects that stay alive. Collecting garbage among them takes 5% of the time.
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)
    for line in sys.stdin:
        name = line.strip()
        jit.warm([name])
        print(_DONE if jit.is_kept(name) else _FAILED, name, flush=True)


if __name__ == "__main__":
    main()
