"""A lane of the portable engine that speaks HTTP/1.1."""

from __future__ import annotations

import numpy as np

from replay.lane.contract import LaneSpec
from replay.portable import engine
from replay.portable.protocol import Evaluated, Outcome, Request
from replay.protocols.http1.session_spec import SessionSpec
from replay_native.feed.ring import WARM_UP
from replay_native.keeping.responses import NONE
from replay_native.ledger.lane_metrics import C
from replay_native.ledger.record import record_handshake
from replay_native.templates.trace_context import renew_parent_in

from .answers import parts_of
from .connection import Http
from .keeping import ResponseKeeping
from .session_values import Answer, Sessions


async def run_lane(spec: LaneSpec) -> None:
    """Run one lane to its end; see `replay.portable.engine.run_lane`."""
    transport = HttpTransport(spec)
    try:
        await engine.run_lane(spec, transport)
    finally:
        transport.close()


class HttpTransport(Http):
    """HTTP with the settings of a lane's spec.

    Handshakes are counted in the lane's metrics, and TLS sessions belong to the lane.
    """

    def __init__(self, spec: LaneSpec) -> None:
        super().__init__(
            spec.metrics, spec.response_headers_bytes, tls=spec.tls, on_handshake=self._count_handshake,
            first=spec.number, ask=spec.ask,
        )  # fmt: skip
        if spec.keeping.mode != NONE:
            self.keeping = ResponseKeeping(spec.keeping)
        self._metrics, self._trace_seed = spec.metrics, spec.trace_seed
        rules = spec.sessions if isinstance(spec.sessions, SessionSpec) else SessionSpec()
        self.answer_limit = rules.answer_bytes
        self._values = Sessions(rules, spec.metrics.rule_counts, spec.metrics.rule_refused)

    def _count_handshake(self, resumed: bool, took_ns: int) -> None:
        if took_ns >= 0:
            record_handshake(self._metrics, int(resumed), took_ns)
        else:
            self._metrics.counters[C.handshakes_failed] += 1

    def close(self) -> None:
        """Release the memory of kept responses."""
        if self.keeping is not None:
            self.keeping.give_back()

    def ended(self, request: Request, due_ns: int, outcome: Outcome) -> None:
        """See `Transport`."""
        if self.keeping is not None:
            self.keeping.end(request, due_ns, outcome)

    def sent_again(self, request: Request, tries: int, *, resent: bool) -> None:
        """See `Transport`. If requests have a traceparent, each attempt gets a new parent id."""
        if self._trace_seed:
            data = np.frombuffer(bytearray(request.data), np.uint8)
            renew_parent_in(data, np.uint64(self._trace_seed), request.seq, tries, int(resent))
            request.data = data.tobytes()

    def tried_again(self, request: Request) -> None:
        """See `Transport`."""
        if self.keeping is not None:
            self.keeping.forget(request)

    def fill_in(self, request: Request) -> bool:
        """See `Transport`."""
        if not request.patches:
            return True
        patched = self._values.patched(request.data, request.patches, request.client)
        if patched is not None:
            request.data = patched
        return patched is not None

    def evaluate(self, request: Request, outcome: Outcome) -> Evaluated:
        """See `Transport`."""
        is_whole = request.answer_bytes <= request.answer_limit
        headers, body = parts_of(request.answer)
        answer = Answer(outcome.status, headers, body if is_whole else None, request.answer_size)
        found = self._values.evaluate(
            request.client,
            request.route,
            answer,
            request.recorded_status,
            is_measured=not request.flags & WARM_UP,
        )
        return Evaluated(found, is_whole)
