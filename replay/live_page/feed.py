"""The data for viewers: a log of messages, which each viewer reads at its own position, and the sections of the page.

Messages (seconds of runs, starts, ends) are numbered, so that a viewer that lost its connection can request those
after its last one. Sections are states: a viewer receives the newest version of each section that it does not have.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

MESSAGES_MAX = 10_000
"""Maximum number of messages that are kept: about those of the last 2 h 46 min. Charts cover the whole run."""


class Feed:
    """Messages and sections, written by the sink's thread and read by the server's thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: deque[tuple[int, bytes]] = deque(maxlen=MESSAGES_MAX)
        self._last = 0
        self._sections: dict[str, tuple[int, str]] = {}
        self._version = 0
        self._listener: Callable[[], None] = lambda: None
        self.viewers = 0
        """The number of streams that are open now."""
        self.is_over = False
        """Whether the feed has ended, so that no message follows."""

    def listen(self, changed: Callable[[], None]) -> None:
        """Register `changed` to be called after each change, in the thread that made the change."""
        self._listener = changed

    def append(self, kind: str, content: bytes) -> None:
        """Add a message with `content`, which is JSON, under the key `kind`."""
        with self._lock:
            self._last += 1
            self._messages.append((self._last, b'{"id":%d,"%s":%s}\n' % (self._last, kind.encode(), content)))
        self._listener()

    def draw(self, sections: Mapping[str, str]) -> None:
        """Replace sections of the page. Sections that did not change keep their version."""
        with self._lock:
            for name, text in sections.items():
                if name not in self._sections or self._sections[name][1] != text:
                    self._version += 1
                    self._sections[name] = (self._version, text)
        self._listener()

    def end(self) -> None:
        """End the feed: viewers that have read everything are disconnected."""
        self.is_over = True
        self._listener()

    def messages_after(self, number: int, most: int) -> tuple[list[bytes], int, int]:
        """Return the next messages after `number`, the number of the last of them, and how many were lost.

        At most `most` messages are returned. Those between `number` and the first one returned are lost if they are no
        longer kept. A `number` above that of the last message counts as 0. If no message follows, `number` is returned.
        """
        with self._lock:
            if number > self._last:
                number = 0
            first = self._messages[0][0] if self._messages else self._last + 1
            lost = max(first - 1 - number, 0)
            begin = max(number + 1 - first, 0)
            found = [self._messages[at] for at in range(begin, min(begin + most, len(self._messages)))]
            return [message for _, message in found], found[-1][0] if found else number + lost, lost

    def sections_after(self, version: int) -> tuple[bytes, int]:
        """Return a message with the sections that changed since a version, and the current version.

        The message is empty if no section changed.
        """
        with self._lock:
            changed = {name: text for name, (at, text) in self._sections.items() if at > version}
            now = self._version
        return (line("sections", changed) if changed else b""), now


def line(kind: str, content: Any) -> bytes:
    """Return a message without a number."""
    return msgspec.json.encode({kind: content}) + b"\n"
