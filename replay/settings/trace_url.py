"""The page of a trace (`trace_url`): what it must be, and the link that a report makes of it."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

TRACE_ID = "{trace_id}"
"""The placeholder in `trace_url` for the id."""

NO_TRACE = "0" * 32
"""An id that no trace has."""

_TRACE_ID = re.compile("[0-9a-f]{32}")


def url_problem(url: str) -> str:
    """Why a text cannot be a `trace_url`; empty if it can."""
    try:
        parts = urlsplit(url.replace(TRACE_ID, "0"))
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        return "it is not a URL"
    if not is_url or any(character <= " " or character > "~" for character in url):
        return "it is not an http or https URL"
    if parts.username or parts.password:
        return "it contains credentials, which every report would show"
    return "" if TRACE_ID in url else f"it does not contain {TRACE_ID}"


def link_of(url: object, found: str) -> str:
    """The address of a trace, from the `trace_url` of a run; empty without one, or if either is not what it must be:
    run folders may come from anywhere.
    """
    if not isinstance(url, str) or not url or url_problem(url) or not _TRACE_ID.fullmatch(found):
        return ""
    return url.replace(TRACE_ID, found)
