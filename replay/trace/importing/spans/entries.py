"""Decides which requests of a recording of spans are sent: a request that another one causes must not be sent as well.

A span's parent is often in another file, and often is recorded later. Therefore all spans are held until all files
were read, in some 40 bytes each: ids, service, and the number of the request.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .model import Span, SpanId

_STEPS_MAX = 1_000
"""Maximum number of spans between a request and its cause.

A longer chain is treated as a circle.
"""

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Choice:
    """The result for each request by number: SENT, or why it is not sent.

    `orphans` counts sent requests whose parent is not in the recording. `circles` counts requests whose ancestors
    form a circle, or a chain of more than _STEPS_MAX spans without a request.
    """

    what: npt.NDArray[np.uint8]
    orphans: int
    circles: int


SENT, NESTED, ELSEWHERE, REPEATED = range(4)
"""What happens to a request: SENT ones are replayed.

NESTED ones are caused by another request, ELSEWHERE ones are not of the selected service, REPEATED ones are
duplicates.
"""


def _key(of: SpanId | None) -> int:
    """Return a hash of a span's ids in 64 bits; 0 if there is no span."""
    return hash(of) or 1 if of is not None else 0


class Entries:
    """The spans of a recording and their parents."""

    def __init__(self) -> None:
        self._keys, self._parents, self._links = array("q"), array("q"), array("q")
        self._services, self._requests, self._consumers = array("i"), array("q"), array("b")
        self._names: dict[str, int] = {}

    @property
    def services(self) -> list[str]:
        """The names of the services by number."""
        return list(self._names)

    def add(self, span: Span, request: int) -> None:
        """Add a span; `request` is the number of its request, -1 if it has none."""
        self._keys.append(_key(span.id))
        self._parents.append(_key(span.parent))
        self._links.append(_key(span.link))
        self._services.append(self._names.setdefault(span.service, len(self._names)))
        self._requests.append(request)
        self._consumers.append(span.kind == "consumer")

    def choose(self, requests: int, service: str | None) -> Choice:
        """Decide for each request whether it is sent.

        `service` selects the requests that enter one service (None: those that enter the system).
        """
        keys, request = np.array(self._keys, np.int64), np.array(self._requests, np.int64)
        services, is_request = np.array(self._services, np.int64), request >= 0
        repeated = _repeated(keys, np.array(self._services, np.int64), request)
        parents = np.array(self._parents, np.int64)
        parent = _found(keys, is_request & ~repeated, parents)
        consumers = np.array(self._consumers, bool)
        links = _found(keys, is_request, np.array(self._links, np.int64))
        parent = np.where((parent < 0) & consumers, links, parent)
        parent = np.where(parent == np.arange(len(keys)), -1, parent)
        what = np.full(requests, SENT, np.uint8)
        mine = np.flatnonzero(is_request)
        wanted = np.ones(len(keys), bool) if service is None else services == self._names.get(service, -1)
        causes, circles = _causes(mine, parent, is_request & wanted, wanted)
        what[request[mine[causes >= 0]]] = NESTED
        what[request[mine[~wanted[mine]]]] = ELSEWHERE
        what[request[mine[repeated[mine]]]] = REPEATED
        is_sent = what[request[mine]] == SENT
        orphans = int(np.count_nonzero((parents[mine] != 0) & (parent[mine] < 0) & is_sent))
        return Choice(what, orphans, circles)


def _repeated(keys: Int64s, services: Int64s, request: Int64s) -> Bools:
    """Return which spans of requests are duplicates, because an exporter may send a batch twice.

    Spans of two services may share an id: those of a client and its server.
    """
    order = np.lexsort((np.arange(len(keys)), services, keys))
    order = order[request[order] >= 0]
    same = (
        (keys[order][1:] != 0)
        & (keys[order][1:] == keys[order][:-1])
        & (services[order][1:] == services[order][:-1])
    )
    found = np.zeros(len(keys), bool)
    found[order[1:][same]] = True
    return found


def _found(keys: Int64s, preferred: Bools, wanted: Int64s) -> Int64s:
    """Return the index of the span for each key, -1 for none.

    If several spans share a key, a request's span is preferred, otherwise the first one.
    """
    if not len(keys):
        return np.full(len(wanted), -1, np.int64)
    order = np.lexsort((np.arange(len(keys)), ~preferred, keys))
    places = np.searchsorted(keys[order], wanted)
    places = np.minimum(places, len(keys) - 1)
    return np.where((keys[order][places] == wanted) & (wanted != 0), order[places], -1)


def _causes(mine: Int64s, parent: Int64s, is_request: Bools, inside: Bools) -> tuple[Int64s, int]:
    """Return for each span in `mine` its nearest ancestor that is a request (-1: none), and how many are circular.

    The search stops when it leaves `inside`. A span is circular if the search does not end within _STEPS_MAX steps.
    """
    causes = np.full(len(mine), -1, np.int64)
    open_, above = np.arange(len(mine)), parent[mine]
    for _ in range(_STEPS_MAX):
        on = (above >= 0) & inside[above]
        open_, above = open_[on], above[on]
        if not len(open_):
            return causes, 0
        hit = is_request[above]
        causes[open_[hit]] = above[hit]
        open_, above = open_[~hit], parent[above[~hit]]
    return causes, len(open_)
