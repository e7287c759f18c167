"""The clock that an agent reports: CLOCK_MONOTONIC, which no program can set."""

from __future__ import annotations

import re
import time
from pathlib import Path

from replay.errors import UsageError
from replay.units import MS_NS, SECOND_NS

SKEW_VARIABLE = "REPLAY_CLOCK_SKEW"
"""An environment variable for tests, which shifts an agent's clock.

`250ms` adds an offset, and `-3s,500ppm` adds an offset and a drift. `0s,0ppm,40ms@12s` sets the clock forward by 40 ms
when the agent is 12 s old.
"""

_FORM = re.compile(r"(-?\d+)(ms|s)(?:,(-?\d+)ppm)?(?:,(-?\d+)ms@(\d+)s)?")


def same_clock() -> str:
    """Return an identity of this machine's CLOCK_MONOTONIC; empty if it is not known.

    Two processes read the same clock if they have the same boot id and time namespace (time_namespaces(7)). Machines
    that were restored from one snapshot can share a boot id, so the coordinator also checks it with probes (`clock`).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"
    except OSError:
        return ""


class AgentClock:
    """CLOCK_MONOTONIC, plus an offset, a drift and a jump that tests inject."""

    def __init__(
        self, offset_ns: int = 0, drift_ppm: int = 0, jump_ns: int = 0, jump_after_ns: int = 0
    ) -> None:
        self._offset_ns, self._ppm = offset_ns, drift_ppm
        self._jump_ns, self._jump_after_ns = jump_ns, jump_after_ns
        self._base_ns = time.monotonic_ns()
        is_altered = any((offset_ns, drift_ppm, jump_ns))
        self.identity = "" if is_altered else same_clock()
        """See `same_clock`; empty if a test alters the clock."""

    @classmethod
    def of(cls, text: str) -> AgentClock:
        """Return the clock that the value of REPLAY_CLOCK_SKEW describes, or the machine's own clock if it is empty.

        Raises UsageError if the value is invalid.
        """
        if not text:
            return cls()
        match = _FORM.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{SKEW_VARIABLE}={text} is not of the form `250ms`, `-3s,500ppm` or `0s,0ppm,40ms@12s`"
            )
        unit_ns = MS_NS if match[2] == "ms" else SECOND_NS
        jump_ns, after_ns = int(match[4] or 0) * MS_NS, int(match[5] or 0) * SECOND_NS
        return cls(int(match[1]) * unit_ns, int(match[3] or 0), jump_ns, after_ns)

    def now_ns(self) -> int:
        """Return the present reading of the clock."""
        now_ns = time.monotonic_ns()
        jumped_ns = self._jump_ns if now_ns - self._base_ns > self._jump_after_ns else 0
        return self.shown_at(now_ns) + jumped_ns

    def shown_at(self, monotonic_ns: int) -> int:
        """Convert an instant of CLOCK_MONOTONIC to a reading of this clock, without the injected jump."""
        return monotonic_ns + self._offset_ns + (monotonic_ns - self._base_ns) * self._ppm // 1_000_000

    def monotonic(self, shown_ns: int) -> int:
        """Convert a reading of this clock, without the injected jump, to CLOCK_MONOTONIC."""
        since_ns = shown_ns - self._offset_ns - self._base_ns
        return self._base_ns + since_ns * 1_000_000 // (1_000_000 + self._ppm)
