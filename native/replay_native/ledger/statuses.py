"""Responses compared with the recording: how many have a worse status than the recorded one, by route.

A response is worse if the recording has a 2xx or 3xx and the target now sends a 4xx or a redirect. 408 and 429 do
not count: they mean that the target is overloaded, not that the request is wrong for it. 304 counts as 200. If the
recording has a redirect, a redirect is not worse, since logs do not contain its Location. 5xx are errors, which are
counted elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import int64

from replay_native.ground.jit import kernel


class StatusIndex(NamedTuple):
    """Columns of `status_counts`, which count complete responses.

    `compared`: the recorded status is known. `worse`: of these, the status is worse. `unknown`: the recorded status
    is not known. `unknown_4xx`: of these, the status is a 4xx other than 408 and 429.
    """

    compared: int = 0
    worse: int = 1
    unknown: int = 2
    unknown_4xx: int = 3


S = StatusIndex()
NOT_MODIFIED, REQUEST_TIMEOUT, TOO_MANY_REQUESTS = 304, 408, 429


@kernel(inlined=True)
def is_refusal(status):
    """Return whether a status is a 4xx that refuses the request itself."""
    return 400 <= status < 500 and status not in (REQUEST_TIMEOUT, TOO_MANY_REQUESTS)


@kernel(inlined=True)
def _is_redirect(status):
    return 300 <= status < 400 and status != NOT_MODIFIED


@kernel(inlined=True)
def is_worse(recorded, status):
    """Return whether `status` is worse than the recorded one."""
    if not 200 <= recorded < 400:
        return False
    return is_refusal(status) or (_is_redirect(status) and not _is_redirect(recorded))


@kernel((int64[:, ::1], int64, int64, int64))
def count_status(counts, route, recorded, status):
    """Count a complete response. `recorded` is 0 if the recorded status is unknown."""
    if recorded > 0:
        counts[route, S.compared] += 1
        counts[route, S.worse] += is_worse(recorded, status)
    else:
        counts[route, S.unknown] += 1
        counts[route, S.unknown_4xx] += is_refusal(status)
