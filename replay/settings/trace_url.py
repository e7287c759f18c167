"""The page of a trace (`trace_url`): checks the setting, and makes the link of a report."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

TRACE_ID = "{trace_id}"
"""The placeholder in `trace_url` for the id."""

NO_TRACE = "0" * 32
"""An id that no trace has."""

_TRACE_ID = re.compile("[0-9a-f]{32}")


def url_problem(url: str) -> str:
    """Return why a text cannot be a `trace_url`; empty if it can."""
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
    """Return the address of a trace, from the `trace_url` of a run.

    Empty without a `trace_url`, or if the URL or the id is invalid: run folders may come from anywhere.
    """
    if not isinstance(url, str) or not url or url_problem(url) or not _TRACE_ID.fullmatch(found):
        return ""
    return url.replace(TRACE_ID, found)
