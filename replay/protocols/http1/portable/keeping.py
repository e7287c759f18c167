"""Keeps responses for the portable engine, with the kernels of the native lane."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from replay.portable.protocol import Outcome, Request
from replay_native.http1 import parser as http1
from replay_native.keeping import responses
from replay_native.keeping.ring import ROWS_LOST, Row
from replay_native.ledger.lane_metrics import REFUSED


class ResponseKeeping:
    """The responses that a lane keeps.

    A request has a slot from the first byte of its response until it has ended.
    """

    def __init__(self, keeping: responses.Keeping) -> None:
        self._keeping = keeping
        self._free = list(range(len(keeping.slots)))
        self._slots: dict[int, int] = {}

    def begin(self, request: Request) -> None:
        """Assign a slot when the first bytes of a response have arrived.

        If no slot is free, the response is not kept.
        """
        if request.seq not in self._slots and self._free:
            self._slots[request.seq] = self._free.pop()
        if request.seq in self._slots:
            responses.begin_from_python(self._keeping, self._slots[request.seq], request.seq)

    def parse(
        self, parsers: npt.NDArray[np.void], request: Request, data: npt.NDArray[np.uint8], header_limit: int
    ) -> int:
        """Parse `data`, keep its parts, and return how many bytes of it belong to the response."""
        slot = self._slots.get(request.seq)
        if slot is None:
            return int(http1.parse_on(parsers, data, header_limit))
        at, parser = 0, parsers[0]
        while at < len(data) and parser["parse_state"] < http1.DONE:
            begin, body_bytes = at, int(parser["body_bytes"])
            at = int(http1.parse_part(parsers, data, at, header_limit))
            state, stretch = int(parser["parse_state"]), int(parser["body_bytes"]) - body_bytes
            if stretch:
                responses.body_from_python(self._keeping, slot, data[at - stretch : at])
            elif not self._keeping.slots[slot]["has_head"] and state != http1.BAD:
                responses.head_from_python(
                    self._keeping, slot, data[begin:at], int(state >= http1.CHUNK_SIZE)
                )
        return at

    def end(self, request: Request, due_ns: int, outcome: Outcome) -> None:
        """Hand over the response of a request that has ended, if it is complete, and free its slot.

        A complete response without a slot is counted as lost.
        """
        slot = self._slots.pop(request.seq, None)
        is_whole = outcome.code < REFUSED
        if slot is not None:
            if is_whole:
                row = Row(
                    request.seq, request.client, request.route, due_ns, outcome.status, request.answer_size
                )
                responses.hand_over_from_python(self._keeping, slot, row)
            self._free.append(slot)
        elif is_whole:
            self._keeping.ring.words[ROWS_LOST] += 1

    def forget(self, request: Request) -> None:
        """Drop the response, because the request will be retried."""
        slot = self._slots.pop(request.seq, None)
        if slot is not None:
            self._free.append(slot)

    def give_back(self) -> None:
        """Release the memory of kept responses."""
        responses.give_back(self._keeping)
