"""Several processes that fill the cache, for the first use, when all kernels have to be compiled.

There is a process for each core, but there are no more processes than modules. A process compiles one module after the
other, the largest ones first. It loads Numba and the pieces that modules share only once, and reports every kernel
that it has compiled. Progress is measured in bytes of bytecode: 10,000 bytes take 1.2 to 3.3 s to compile, whatever
module they are in.
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
"""A function that is called with the compiled share (0 to 1) and the modules that are being compiled."""

LOOK_S = 0.25
"""The longest time between two reports of the progress, in seconds."""

_COMPILED, _DONE, _FAILED = "compiled", "done", "failed"


class _Tally:
    """Counts how much of the bytecode is compiled."""

    def __init__(self, modules: Iterable[str]) -> None:
        needed = {part for name in modules for part in sources.sources(name)}
        self._bytes = {part: jit.code_bytes(part) for part in needed}
        self._done: Counter[str] = Counter()
        self._total = max(sum(self._bytes.values()), 1)

    def add(self, part: str, size: int) -> None:
        """Count a compiled kernel of the module `part`.

        A kernel can be compiled for several types. So a module never counts for more than its whole size.
        """
        self._done[part] = min(self._done[part] + size, self._bytes.get(part, 0))

    def finish(self, name: str) -> None:
        """Count a module as compiled, including those of its kernels that were already in the cache."""
        self._done[name] = self._bytes.get(name, 0)

    def share(self) -> float:
        """Return the compiled share of the bytecode, from 0 to 1."""
        return sum(self._done.values()) / self._total


class _Worker:
    """A process that compiles the modules that it is given."""

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
        """Send the process the name of a module to compile."""
        self.module = module
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{module}\n".encode())
            self.process.stdin.flush()

    def reports(self) -> Iterator[list[str]]:
        """Yield the reports since the last call, split into words; `failed` if the process has ended."""
        assert self.process.stdout is not None
        found = self.process.stdout.read()
        if found == b"":
            yield [_FAILED]
            return
        *lines, self._begun = (self._begun + (found or b"")).split(b"\n")
        for line in lines:
            yield line.decode().split()

    def end(self) -> None:
        """Kill the process, so that no compiler keeps running."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()


def compile_apart(modules: Iterable[str], progress: Progress | None = None) -> bool:
    """Fill the cache for `modules` from several processes, and return whether all of them succeeded.

    After a failure, call `warm`, which compiles in this process, or raises the error.
    """
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
        # This happens also after an interrupt, so that no compiler keeps running.
        for worker in workers:
            worker.end()


def _bytes_needed(name: str) -> int:
    return sum(map(jit.code_bytes, sources.sources(name)))


def _report_compiled() -> None:
    """Print a report after each kernel that Numba has compiled."""
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
    """Compile each module whose name arrives on standard input, and report it on standard output."""
    _report_compiled()
    # Numba creates many small objects that stay alive. Searching them for garbage would take 5% of the time.
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)
    for line in sys.stdin:
        name = line.strip()
        jit.warm([name])
        print(_DONE if jit.is_kept(name) else _FAILED, name, flush=True)


if __name__ == "__main__":
    main()
