"""Growth by whole sessions: new clients repeat recorded sessions, with the same requests, order and pauses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replay.errors import LimitError, UsageError
from replay.settings.kinds import Scale, setting_text
from replay.trace import Batch, Requests, with_requests
from replay_native.workload import scale as kernels

from .rules import classes_to_scale
from .steps import (
    OUTPUT_ROWS,
    Events,
    Int64s,
    Memory,
)

PAUSE_NS = 1_800 * 1_000_000_000
"""A client that returns after a pause of half an hour starts a new session."""

RULES_MAX = 62
"""Maximum number of rules: each is one bit of a 64-bit integer."""


@dataclass(frozen=True, slots=True)
class _Sessions:
    """Each session's start, and the rules that match its events (as bits)."""

    starts_ns: Int64s
    masks: Int64s


@dataclass(frozen=True, slots=True)
class CloneSessions:
    """Multiplies each session that has an event of a rule's route by the rule's factor.

    If several rules match, the largest factor is used. A clone is a new client. It starts earlier by a fraction
    of the gap since the previous session of the same rule, so that session starts are interpolated as `Grow`
    interpolates events. Memory grows by 40 bytes per session.
    """

    scale: Scale
    seed: int
    ordered = False

    def record(self) -> dict[str, Any]:
        """Return the entry for the trace's history."""
        return {
            "transform": "scale", "scale": setting_text(self.scale), "grow": "sessions", "seed": self.seed,
        }  # fmt: skip

    def apply(self, events: Events, requests: Requests) -> Iterator[Batch]:
        """Yield the events, and those of the clones."""
        if len(self.scale) > RULES_MAX:
            raise LimitError(f"--scale: more than {RULES_MAX} rules", hint="combine routes with *")
        for route, factor in self.scale:
            if factor < 1:
                raise UsageError(
                    f"--scale: {f'{route}=' if route else ''}{factor:g} reduces the load, but --grow "
                    f"sessions can only add clones",
                    hint=f"--sample {100 * factor:g}% --sample-by client keeps a share of the "
                    f"clients, with all of their requests",
                )
        factors = np.array([factor for _, factor in self.scale], np.float64)
        classes = classes_to_scale(requests, self.scale)
        found, clients = _find(events, requests, classes)
        clones, gaps_ns = np.zeros(len(found.starts_ns), np.int64), np.zeros(len(found.starts_ns), np.int64)
        before_ns = np.full(len(factors), kernels.KEPT, np.int64)
        kernels.plan_clones(
            found.starts_ns, found.masks, factors, np.uint64(self.seed), before_ns, clones, gaps_ns
        )
        first_clients = clients + np.cumsum(clones) - clones
        yield from self._cloned(events, clients, clones, first_clients, gaps_ns)

    def _cloned(
        self, events: Events, clients: int, clones: Int64s, first_clients: Int64s, gaps_ns: Int64s
    ) -> Iterator[Batch]:
        rows = max(OUTPUT_ROWS, 2 * int(clones.max(initial=0)))
        plan = kernels.Clones(PAUSE_NS, _clients(clients), clones, first_clients, gaps_ns, self.seed)
        sessions, memory, source = 0, Memory(), np.empty(rows, np.int64)
        for batch in events():
            begin = 0
            while begin < len(batch):
                at_ns, client = memory.empty(rows, np.int64), memory.empty(rows, np.uint32)
                out = kernels.Copies(at_ns, source, client)
                count, begin, sessions = kernels.clone_rows(batch.rows, begin, plan, sessions, out)
                yield memory.taken(batch, source[:count], at_ns=at_ns[:count], client=client[:count])


def _clients(count: int) -> npt.NDArray[np.int64]:
    known = np.zeros((count, kernels.CLIENT_WORDS), np.int64)
    known[:, kernels.SESSION] = -1
    return known


def _grown(array: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """Return the array with space for `rows` rows, at least doubled if it must grow."""
    if rows <= len(array):
        return array
    larger = np.full((max(rows, 2 * len(array)), *array.shape[1:]), 0, np.int64)
    larger[: len(array)] = array
    return larger


def _find(events: Events, requests: Requests, classes: Int64s) -> tuple[_Sessions, int]:
    """Find the sessions of a stream, in the order of their first events, and return the highest client id plus 1."""
    table, sessions, clients = requests.addresses(), 0, 0
    known = _clients(1024)
    starts_ns, masks = np.zeros(1024, np.int64), np.zeros(1024, np.int64)
    for batch in with_requests(events(), requests, columns_alone=True):
        clients = max(clients, int(batch.client.max()) + 1)
        if clients > len(known):
            before, known = known, _clients(max(clients, 2 * len(known)))
            known[: len(before)] = before
        starts_ns, masks = _grown(starts_ns, sessions + len(batch)), _grown(masks, sessions + len(batch))
        sessions = kernels.find_sessions(
            batch.rows, table, classes, PAUSE_NS, known, sessions, starts_ns, masks
        )
    return _Sessions(starts_ns[:sessions], masks[:sessions]), clients
