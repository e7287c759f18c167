"""The states of a connection and their transitions, as a table.

The kernels set the states, and the tests check the kernels against the table. `python -m replay_native.lane.states
docs/lane-contract.md` draws the diagram in that page from it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

CLOSED, CONNECTING, IDLE, BUSY = range(4)
STATES = ("CLOSED", "CONNECTING", "IDLE", "BUSY")

MEANINGS = {
    CLOSED: "no socket; the row is free",
    CONNECTING: "from the request for an address, or connect(), until it can be used (with TLS, after the handshake)",
    IDLE: "open, and not used by a request",
    BUSY: "used by a request: from before its first byte is sent until its response is complete or the connection fails",
}


class Transition(NamedTuple):
    """A transition between two states: the kernel that sets the state, and when."""

    before: int
    after: int
    kernel: str
    when: str


TRANSITIONS = (
    Transition(CLOSED, CONNECTING, "dial", "a request needs a connection"),
    Transition(CONNECTING, IDLE, "push_idle", "connected, for whichever request is next"),
    Transition(CONNECTING, BUSY, "transmit", "connected, for the request that is sent again"),
    Transition(CONNECTING, CLOSED, "give_closed_slot", "failed, timed out, or its address was removed"),
    Transition(IDLE, BUSY, "transmit", "a request is put on it"),
    Transition(
        IDLE,
        CLOSED,
        "give_closed_slot",
        "closed by the target, idle for too long, or its address was removed",
    ),
    Transition(BUSY, IDLE, "push_idle", "the response is complete, and the connection can be kept"),
    Transition(
        BUSY, CONNECTING, "dial", "a reused connection ended without a response: the request is sent again"
    ),
    Transition(BUSY, CLOSED, "give_closed_slot", "failed, timed out, or the connection cannot be kept"),
)

BEGIN, END = "<!-- connection states -->\n", "<!-- end of connection states -->\n"


def drawing() -> str:
    """Return the table as a Mermaid diagram and a list, in Markdown."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {STATES[CLOSED]}"]
    for one in TRANSITIONS:
        lines.append(f"    {STATES[one.before]} --> {STATES[one.after]}: {one.kernel}")
    lines += ["```", "", "| from | to | kernel | when |", "|---|---|---|---|"]
    for one in TRANSITIONS:
        lines.append(f"| {STATES[one.before]} | {STATES[one.after]} | `{one.kernel}` | {one.when} |")
    lines.append("")
    lines += [f"- {STATES[state]}: {words}." for state, words in MEANINGS.items()]
    return "\n".join(lines) + "\n"


def drawn_in(page: str) -> str:
    """Return a page with the drawing between its two marks. ValueError if a mark is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no place for the drawing: {BEGIN.strip()} and {END.strip()}")
    return before + begin + drawing() + end + after


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(drawn_in(path.read_text()))
