"""The messages between a coordinator and its agents.

A connection transfers messages in frames: four bytes of length (big-endian), then the message in MessagePack, as a map
with its name in `kind`. Instants are in ns, by the clock of the side that their description mentions. A message that
is unknown, or too large, ends the connection.

    coordinator                          agent
    Challenge(nonce)          ->
                              <-         Hello(versions, machine, proof)
    Welcome(agent, proof)     ->
    Probe                    <->         Echo            from now on, several times per second: clocks, signs of life
    Plan(epoch, share, ...)   ->
                              <-         Want(file, offset)            what the agent lacks of the trace
    Piece(file, offset, data) ->
                              <-         Ready(planned)
    Start(instant)            ->
                              <-         Armed
                              <-         Opened(started)               the facts of the run, as started.json has them
                              <-         Report(second)                once per second, all counts since the start
    Stop(how)                 ->
                              <-         End(accounts)
    Fetch(file, offset)       ->
                              <-         Piece(file, offset, data)     the agent's run folder
    Release                   ->
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

PROTOCOL = 2
"""The version of these messages. Both sides must have the same version."""

FRAME_BYTES_MAX = 64 << 20
"""The size of the largest message. Files are sent in pieces."""

PIECE_BYTES = 1 << 20
"""The size of a piece of a file, small enough not to delay probes and reports."""


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """The base class of all messages."""


class Challenge(Message, frozen=True, kw_only=True, tag="challenge"):
    """The coordinator's first message. The agent uses `nonce` to prove that it knows the token."""

    protocol: int = PROTOCOL
    nonce: bytes


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """Describes the agent and its machine.

    `kernels` is the digest of its kernels' sources. `order` identifies the agent among those that the coordinator
    starts; it is empty for agents that are started elsewhere. `clock` is the identity of its clock (empty if it is not
    known).
    """

    protocol: int = PROTOCOL
    version: str
    kernels: str
    host: str
    pid: int
    cpus: int
    memory_bytes: int
    open_files: int
    engine: str
    clock: str = ""
    order: str = ""
    nonce: bytes = b""
    proof: bytes = b""


class Welcome(Message, frozen=True, kw_only=True, tag="welcome"):
    """Accepts the agent as number `agent`. `proof` shows that the coordinator knows the token."""

    agent: int
    proof: bytes = b""


class Refusal(Message, frozen=True, kw_only=True, tag="refusal"):
    """Reports that the other side is not accepted, that its request is refused, or that an agent's run failed."""

    why: str
    hint: str = ""
    code: int = 2


class Probe(Message, frozen=True, kw_only=True, tag="probe"):
    """Asks for an echo. `sent_ns` is the coordinator's clock when it sent the probe."""

    number: int
    sent_ns: int


class Echo(Message, frozen=True, kw_only=True, tag="echo"):
    """Answers a probe.

    `sent_ns` repeats the time in the probe. `came_ns` and `left_ns` are the agent's clock when the probe arrived
    and when the echo was sent.
    """

    number: int
    sent_ns: int
    came_ns: int
    left_ns: int


class FileOffer(msgspec.Struct, frozen=True):
    """A file of the trace, or of an agent's run folder."""

    name: str
    size: int
    sha256: str = ""


class Plan(Message, frozen=True, kw_only=True, tag="plan"):
    """Describes an agent's share of a run.

    It contains only values: `environ` has the variables that the scenario uses, `files` the content of its files.
    `epoch` is new for each run; an agent accepts each epoch once. The agent has `lanes` lanes, from `first_lane`,
    of the `all_lanes` lanes of the run.
    """

    epoch: str
    run_id: str
    agent: int
    agents: int
    first_lane: int
    lanes: int
    all_lanes: int
    scenario: bytes
    environ: dict[str, str] = {}
    files: dict[str, bytes] = {}
    trace_digest: str
    trace_name: str
    trace_path: str = ""
    trace: list[FileOffer] = []


class Want(Message, frozen=True, kw_only=True, tag="want"):
    """Requests the piece of a file of the trace that begins at this offset."""

    file: str
    offset: int


class Piece(Message, frozen=True, kw_only=True, tag="piece"):
    """Part of a file, from `offset`. `last` marks the end of the file."""

    file: str
    offset: int
    data: bytes
    last: bool


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """Reports that the share is planned and the lanes are warm.

    `due_by_second` counts the share's requests by second of the run. `routes` is the digest of the names of all
    routes, which must be the same for all agents.
    """

    epoch: str
    planned: int
    due_by_second: list[int]
    routes: str = ""


class Start(Message, frozen=True, kw_only=True, tag="start"):
    """Sets the start: the first request of the run is due at this instant.

    The instant is `instant_ns` by the coordinator's clock and `agent_ns` by the agent's. `bound_ns` is how far
    `agent_ns` may be from the instant. `planned_whole` is the number of requests of all agents.
    """

    epoch: str
    instant_ns: int
    agent_ns: int
    offset_ns: int
    bound_ns: int
    planned_whole: int = 0


class Armed(Message, frozen=True, kw_only=True, tag="armed"):
    """Confirms that the agent will start at the instant."""

    epoch: str


class Opened(Message, frozen=True, kw_only=True, tag="opened"):
    """Reports that the agent is about to start. `started` is the started.json of its share."""

    epoch: str
    started: bytes


class Counts(msgspec.Struct, frozen=True):
    """The counters of a histogram that grew, and their increments.

    `at` are the counters' indices (int32), `counts` the increments (uint64), both little-endian. `since_s` is the time
    from the start of the run to the start of the interval, which is `length_s` long.
    """

    tag: str
    since_s: float
    length_s: float
    at: bytes
    counts: bytes


class Report(Message, frozen=True, kw_only=True, tag="report"):
    """Reports the counts of an agent up to `at_s` of the run.

    `totals` count since the start, so that they replace those of every earlier report. Everything else covers only
    this second. `events` are (seconds since the start, kind, text).
    """

    epoch: str
    number: int
    at_s: float
    totals: dict[str, int]
    second: dict[str, Any] = {}
    counters: dict[str, int] = {}
    routes: dict[str, dict[str, int]] = {}
    histograms: list[Counts] = []
    events: list[tuple[float, str, str]] = []


class Stop(Message, frozen=True, kw_only=True, tag="stop"):
    """Ends the run: with `drain`, requests in flight are completed; with `abandon`, they are not."""

    epoch: str
    how: Literal["drain", "abandon"]
    why: str = ""


class End(Message, frozen=True, kw_only=True, tag="end"):
    """Reports that the agent's share has ended, and that its run folder is complete."""

    epoch: str
    accounts: dict[str, int]
    ending: str
    folder: str = ""
    files: list[FileOffer] = []


class Fetch(Message, frozen=True, kw_only=True, tag="fetch"):
    """Requests the piece of a file of the agent's run folder that begins at this offset."""

    file: str
    offset: int


class Release(Message, frozen=True, kw_only=True, tag="release"):
    """Permits the agent to exit, because the coordinator needs nothing more.

    With `remove` the agent removes its run folder, because the coordinator has a copy.
    """

    remove: bool = False


AnyMessage = (
    Challenge | Hello | Welcome | Refusal | Probe | Echo | Plan | Want | Piece | Ready | Start | Armed | Opened
    | Report | Stop | End | Fetch | Release
)  # fmt: skip
"""The union of all messages, from which the decoder selects by `kind`."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """Encode a message, without its length."""
    return _ENCODER.encode(message)


def decode(data: bytes) -> AnyMessage:
    """Decode a message. Raises msgspec.DecodeError if the data is invalid."""
    return _DECODER.decode(data)
