"""A few requests of a trace in readable form, with which a user checks a new recording."""

from __future__ import annotations

import datetime as dt

import msgspec
import numpy as np

from replay.units import SECOND_NS, format_moment

from .reader import Trace

EXAMPLES = 3


class Example(msgspec.Struct, kw_only=True):
    """One request in readable form.

    `at` includes the time zone's offset. `client` is the client's number. A `status` or `took_ns` of -1 is unknown.
    """

    at: str
    at_ns: int
    client: int
    method: str
    host: str
    target: str
    status: int
    took_ns: int


def examples(trace: Trace, zone: dt.tzinfo = dt.UTC) -> list[Example]:
    """Return the first, the middle and the last request of a trace, or fewer if it has fewer."""
    wanted = sorted({0, trace.rows // 2, max(trace.rows - 1, 0)})[: min(EXAMPLES, trace.rows)]
    found, begin, requests = list[Example](), 0, trace.requests
    for batch in trace.batches():
        end = begin + len(batch.at_ns)
        for row in (row - begin for row in wanted if begin <= row < end):
            asked = requests.get(int(batch.request[row]))
            at_ns = int(batch.at_ns[row])
            found.append(
                Example(
                    at=moment_text(at_ns, zone),
                    at_ns=at_ns,
                    client=int(batch.client[row]),
                    method=requests.methods[asked.method],
                    host=requests.hosts[asked.host] if asked.host >= 0 else "",
                    target=asked.target.decode("latin-1"),
                    status=int(batch.status[row]),
                    took_ns=int(batch.took_ns[row]),
                )
            )
        begin = end
        if begin > wanted[-1]:
            break
    return found


def moment_text(at_ns: int, zone: dt.tzinfo) -> str:
    """Format a time with milliseconds and zone: 2026-11-29 16:28:40.123 +00:00."""
    text, _, offset = format_moment(at_ns - at_ns % SECOND_NS, zone).rpartition(" ")
    return f"{text.partition('.')[0]}.{np.int64(at_ns) % SECOND_NS // 1_000_000:03d} {offset}"
