"""Runs Trio functions for programs that do not use Trio: in any thread, beside any other event loop."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import outcome
import trio

Result = TypeVar("Result")


def run_blocking(main: Callable[[], Awaitable[Result]]) -> Result:
    """Run a Trio function to its end, block the caller until then, and return its result.

    If an event loop runs in this thread (asyncio's, or Trio's own), the function gets its own thread: two loops
    in one thread would share the mechanism by which signals wake them. KeyboardInterrupt then cancels the
    function, and is raised after the function has ended.
    """
    return _in_own_thread(main) if _has_event_loop() else trio.run(main)


def owns_signals() -> bool:
    """Return whether a run that begins here may handle signals, which only reach the main thread."""
    return threading.current_thread() is threading.main_thread() and not _has_event_loop()


def _has_event_loop() -> bool:
    """Return whether an event loop runs in this thread, or may be woken by the main thread's signals."""
    if asyncio := sys.modules.get("asyncio"):  # If asyncio was never imported, none of its loops is running.
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            return True
    if trio.lowlevel.in_trio_run():
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    # Another library may have set the wakeup descriptor so that signals wake it, and Trio would replace it.
    wakeup_fd = signal.set_wakeup_fd(-1)
    if wakeup_fd != -1:
        signal.set_wakeup_fd(wakeup_fd)
    return wakeup_fd != -1


@contextlib.contextmanager
def _interrupts_raise() -> Iterator[None]:
    """Make SIGINT raise KeyboardInterrupt in the block.

    asyncio's handler would only cancel a task, which cannot run while the block waits.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _in_own_thread(main: Callable[[], Awaitable[Result]]) -> Result:
    results: list[outcome.Maybe[Any]] = []
    scope = trio.CancelScope()
    tokens: list[trio.lowlevel.TrioToken] = []
    has_begun, has_ended = threading.Event(), threading.Event()

    async def cancellable() -> Result:
        tokens.append(trio.lowlevel.current_trio_token())
        has_begun.set()
        with scope:
            return await main()
        raise KeyboardInterrupt

    def run() -> None:
        results.append(outcome.capture(trio.run, cancellable))
        has_ended.set()

    thread = threading.Thread(target=run, name="replay", daemon=True)
    thread.start()
    try:
        # An interrupted `join` would make Python 3.11 treat the thread as ended.
        with _interrupts_raise():
            has_ended.wait()
    except BaseException:
        has_begun.wait()
        with contextlib.suppress(trio.RunFinishedError):
            tokens[0].run_sync_soon(scope.cancel)
        has_ended.wait()
        raise
    finally:
        thread.join()
    result: Result = results[0].unwrap()
    return result
