"""`--start-at`: waits for the start time of a run, a search or a session."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from replay.settings.instant import moment_text
from replay.units import SECOND_NS, format_duration

LEAD_NS = 10 * SECOND_NS
"""How long before its start time a run begins, to open connections and start lanes."""

MINUTE_NS = 60 * SECOND_NS


def wait_for(
    at_ns: int, say: Callable[[str], None], *, plain: bool, lead_ns: int = LEAD_NS,
    what: str = "the first request is due",
) -> None:  # fmt: skip
    """Wait until `lead_ns` before a start time, and show a countdown.

    `what` says what happens at that time. The countdown follows the wall clock, because that can be set meanwhile.
    On a terminal one line is rewritten each second; otherwise `say` receives a line each minute.
    """
    say(f"{what} at {moment_text(at_ns)}")
    rewrites = sys.stderr.isatty() and not plain
    reported_ns = 0
    while (left_ns := at_ns - lead_ns - time.time_ns()) > 0:
        words = (
            f"starts in {format_duration((left_ns + lead_ns) // SECOND_NS * SECOND_NS)}; Ctrl-C ends the wait"
        )
        if rewrites:
            print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)
        elif not reported_ns or reported_ns - left_ns >= MINUTE_NS:
            reported_ns = left_ns
            say(words)
        time.sleep(min(left_ns, SECOND_NS) / SECOND_NS)
    if rewrites:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
