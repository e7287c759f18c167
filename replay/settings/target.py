"""The parts of a target's URL. Each protocol parses its own URLs (`replay.protocols.registry`)."""

from __future__ import annotations

from dataclasses import dataclass

from replay.errors import UsageError
from replay.shown import without_user


@dataclass(frozen=True)
class Target:
    """The target of a run.

    `base_path` does not end with a slash. `authority` is the host, with the port unless it is the protocol's
    default.
    """

    url: str
    host: str
    port: int
    base_path: str
    authority: str

    @property
    def scheme(self) -> str:
        """The URL's scheme, in lower case."""
        return scheme_of(self.url)


def scheme_of(url: str) -> str:
    """Return the scheme of a target URL, in lower case. UsageError if it has none."""
    if not url:
        raise UsageError("no target", hint="give --target http://127.0.0.1:8080")
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise UsageError(
            without_user(f"the target {url!r} has no scheme"),
            hint=without_user(f"did you mean http://{url}?"),
        )
    return scheme.lower()


def sendable(text: str) -> bool:
    """Return whether a text can be sent in a request without quoting: only visible ASCII."""
    return all("!" <= character <= "~" for character in text)
