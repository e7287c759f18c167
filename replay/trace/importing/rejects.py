"""Counts rejected input by reason, keeps the first examples, and decides when an import aborts."""

from __future__ import annotations

from collections import Counter

from replay.errors import InputError
from replay.trace import RejectedExample

from .showing import showable

EXAMPLES_A_REASON = 3
EXAMPLE_CHARS = 200

LINES_BEFORE_JUDGING = 1_000
"""A file with fewer lines is judged only after its last line."""

BLANK, TOO_LONG = "blank", "too long line"
NO_METHOD, NO_PATH = "no method", "no path"

HEALTH_CHECK = "health check"
HEADER = "header"
DETAIL, MEASUREMENT = "another line of a request", "another measurement"
AMBIGUOUS, NO_START = "completed, but which request", "completed without a start"
BODY_ELSEWHERE = "body in another file"
BANNER = "message of the server"
CACHED, NEVER_SENT = "from the browser's cache", "never sent"
"""Entries that a browser recorded but did not send to a server."""

CAUSED, NOT_WANTED, REPEATED_SPAN = "caused by another request", "of another service", "span that came before"
"""Spans of requests that are not replayed.

Another request causes them, another service was selected, or they are duplicates.
"""

NO_SPAN_REQUEST = frozenset(
    {
        "client or internal span", "message of another system", "remote procedure call", "server span without HTTP",
        "no topic", "logs or metrics", CAUSED, NOT_WANTED, REPEATED_SPAN,
    }
)  # fmt: skip
"""Reasons why a span is not replayed as a request."""

NOT_CAPTURED, REQUEST_NOT_CAPTURED = "not captured whole", "response without request"
"""Losses because a capture lacks packets."""

_NO_REQUEST = frozenset(
    {HEADER, DETAIL, MEASUREMENT, AMBIGUOUS, NO_START, BODY_ELSEWHERE, BANNER, CACHED, NEVER_SENT}
    | NO_SPAN_REQUEST
)
"""Kinds of lines that are not requests of their own."""

WELL_FORMED = (
    frozenset({BLANK, NO_METHOD, NO_PATH, HEALTH_CHECK, NOT_CAPTURED, REQUEST_NOT_CAPTURED}) | _NO_REQUEST
)
"""Reasons that do not count against the format.

They are blank lines, lines that are not requests, health checks, requests that were malformed for the server as well,
requests that a browser did not send, and losses of a capture.
"""


class Rejects:
    """Counts of rejected lines over all files, with examples.

    `lines` counts every line read, rejected or not.
    """

    def __init__(self) -> None:
        self.lines = 0
        self.counts: Counter[str] = Counter()
        self.examples: list[RejectedExample] = []

    def wants_example(self, reason: str) -> bool:
        """Return whether another example for `reason` would be kept."""
        return sum(example.reason == reason for example in self.examples) < EXAMPLES_A_REASON

    def add(self, reason: str, file: str, line: int, text: bytes) -> None:
        """Count one rejected line, and keep it (cut and scrubbed) if it is among the first for its reason."""
        self.counts[reason] += 1
        if self.wants_example(reason):
            shown = showable(text.rstrip(b"\r\n"), EXAMPLE_CHARS)
            self.examples.append(RejectedExample(reason=reason, file=file, line=line, text=shown))


class FileJudge:
    """Aborts the import when most lines of a file do not match the detected format."""

    def __init__(self, rejects: Rejects, file: str, format_name: str, title: str) -> None:
        self._rejects, self._file, self._format_name, self._title = rejects, file, format_name, title
        self._lines_before, self._counts_before = rejects.lines, rejects.counts.copy()

    def judge(self, *, at_end: bool = False) -> None:
        """Raise InputError if more than half of the lines so far do not match.

        At least LINES_BEFORE_JUDGING lines are needed, except at the end of the file.
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
                f"{self._file} is not {self._title}: of {lines:,} lines, these were rejected: {reasons}",
                hint=f"replay import --format {self._format_name} imports it as that format anyway",
            )
