"""What an import could not use: counted by reason, with the first examples, and when to give up."""

from __future__ import annotations

from collections import Counter

from replay.errors import InputError
from replay.trace import RejectedExample

from .showing import showable

EXAMPLES_A_REASON = 3
EXAMPLE_CHARS = 200

LINES_BEFORE_JUDGING = 1_000
"""A file of fewer lines is judged at its end."""

BLANK = "blank"
NO_METHOD, NO_PATH = "no method", "no path"

HEALTH_CHECK = "health check"
HEADER = "header"
DETAIL, MEASUREMENT = "another line of a request", "another measurement"
AMBIGUOUS, NO_START = "completed, but which request", "completed without a start"
BODY_ELSEWHERE = "body in another file"
BANNER = "message of the server"
CACHED, NEVER_SENT = "from the browser's cache", "never sent"
"""What a browser has in its recording, but sent to no server."""

NOT_CAPTURED, REQUEST_NOT_CAPTURED = "not captured whole", "response without request"
"""What holes in a capture cost."""

_NO_REQUEST = frozenset(
    {HEADER, DETAIL, MEASUREMENT, AMBIGUOUS, NO_START, BODY_ELSEWHERE, BANNER, CACHED, NEVER_SENT}
)
"""What lines are that are no request of their own."""

WELL_FORMED = (
    frozenset({BLANK, NO_METHOD, NO_PATH, HEALTH_CHECK, NOT_CAPTURED, REQUEST_NOT_CAPTURED}) | _NO_REQUEST
)
"""Reasons that say nothing against the format: blank lines, headers, health checks, requests that were garbage to the
server too, what was never sent, and lines that are no request of their own.
"""


class Rejects:
    """Counts of rejected lines over all files, and examples. `lines` is what was read, rejected or not."""

    def __init__(self) -> None:
        self.lines = 0
        self.counts: Counter[str] = Counter()
        self.examples: list[RejectedExample] = []

    def wants_example(self, reason: str) -> bool:
        """Whether another example of `reason` would be kept."""
        return sum(example.reason == reason for example in self.examples) < EXAMPLES_A_REASON

    def add(self, reason: str, file: str, line: int, text: bytes) -> None:
        """Count one rejected line, and keep it (cut, scrubbed) among the first of its reason."""
        self.counts[reason] += 1
        if self.wants_example(reason):
            shown = showable(text.rstrip(b"\r\n"), EXAMPLE_CHARS)
            self.examples.append(RejectedExample(reason=reason, file=file, line=line, text=shown))


class FileJudge:
    """Refuses a file most of whose lines are not of the format it was taken for."""

    def __init__(self, rejects: Rejects, file: str, title: str) -> None:
        self._rejects, self._file, self._title = rejects, file, title
        self._lines_before, self._counts_before = rejects.lines, rejects.counts.copy()

    def judge(self, *, at_end: bool = False) -> None:
        """InputError where more than half of the lines so far (1,000 at least, or the whole file) are
        foreign.
        """
        lines = self._rejects.lines - self._lines_before
        if lines < LINES_BEFORE_JUDGING and not at_end:
            return
        counts = self._rejects.counts - self._counts_before
        foreign = {reason: count for reason, count in counts.items() if reason not in WELL_FORMED}
        if 2 * sum(foreign.values()) > lines:
            reasons = ", ".join(
                f"{reason} {count:,}" for reason, count in sorted(foreign.items(), key=lambda x: -x[1])
            )
            raise InputError(
                f"{self._file} is not {self._title}: of {lines:,} lines these were rejected: {reasons}",
                hint="--format takes it as that format all the same",
            )
