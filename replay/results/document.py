"""The document of a run, `run.json`, with its format version.

The schema in `docs/run-format.md` is generated from these structs. Times are int64 nanoseconds (`_ns`) or seconds
(`_s`); wall clock times are ns since the epoch. Names do not change within a version.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from replay.decoding import examined
from replay.errors import InputError
from replay.ledger.accounts import Accounts, AccountsDetail
from replay.ledger.host import Host
from replay.ledger.statuses import StatusFigures
from replay.ledger.validity import Validity

from .agents import AgentFigures
from .business_figures import BusinessFigures
from .figures import (
    AddressChange,
    AddressFigures,
    AnswerFigures,
    Connections,
    Consumed,
    Delays,
    Generator,
    KafkaFigures,
    KafkaPartition,
    NameFigures,
    Retries,
    RouteFigures,
    RuleFigures,
    SessionFigures,
    SloOutcome,
    SourceFigures,
    SourceSoFar,
    TargetFigures,
    TlsFigures,
    WatchFigures,
    WindowsHeld,
)
from .latencies import Latencies, Latency
from .started import (
    FORMAT_VERSION,
    ClockPair,
    EngineName,
    Recorded,
    RecordedClock,
    RouteStart,
    Started,
    TargetStart,
    TlsPeer,
    TraceIdentity,
    actions_of,
)

__all__ = [
    "FORMAT_VERSION",
    "AddressChange",
    "AddressFigures",
    "AnswerFigures",
    "BusinessFigures",
    "ClockPair",
    "Connections",
    "Consumed",
    "Delays",
    "EngineName",
    "Generator",
    "KafkaFigures",
    "KafkaPartition",
    "Latencies",
    "Latency",
    "NameFigures",
    "Recorded",
    "RecordedClock",
    "Retries",
    "RouteFigures",
    "RouteStart",
    "RuleFigures",
    "SessionFigures",
    "SloOutcome",
    "SourceFigures",
    "SourceSoFar",
    "Started",
    "TargetFigures",
    "TargetStart",
    "TlsFigures",
    "TlsPeer",
    "TraceIdentity",
    "WatchFigures",
    "WindowsHeld",
    "actions_of",
]
# The module re-exports the parts of the document, so that readers of run.json import all structs from one place.

EndedHow = Literal["whole", "interrupted", "killed", "circuit_breaker", "not_allowed", "over_limit", "failed"]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How the run ended.

    `detail` is a sentence for people. `at_s` counts from the start.
    """

    how: EndedHow = "whole"
    detail: str = ""
    at_s: float = 0.0


class Note(msgspec.Struct, frozen=True):
    """A remark that does not count against the run, such as CONNECTION_LIMITED."""

    code: str
    message: str


class RunDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The content of run.json.

    In a run of several targets the figures cover all of them, and `targets` has the figures of each; `kafka` and
    `tls` are those of the first target that has them. `watched` holds the samples of watched figures, one per row of
    the timeline. `watched_first` is a sentence about the watched figure that changed first before an objective was
    missed. `agents` are the agents of a run over several machines.
    """

    format_version: int = FORMAT_VERSION
    replay_version: str
    run_id: str = ""
    together: str = ""
    name: str = ""
    build: str = ""
    started_at: str
    ended_at: str
    start: ClockPair
    duration_s: float
    interrupted: bool
    ending: Ending
    closed_loop: bool
    target: str
    trace: TraceIdentity | None = None
    recorded_clock: RecordedClock | None = None
    rows_in_window: int = 0
    accounts: Accounts
    accounts_detail: AccountsDetail
    validity: Validity
    status_differs: StatusFigures | None = None
    notes: list[Note] = []
    latency: Latencies
    routes: list[RouteFigures]
    actions: list[RouteFigures] = []
    business: BusinessFigures | None = None
    generator: Generator
    connections: Connections
    retries: Retries | None = None
    slo: list[SloOutcome] = []
    kafka: KafkaFigures | None = None
    targets: list[TargetFigures] = []
    addresses: list[AddressFigures] = []
    names: list[NameFigures] = []
    tls: TlsFigures | None = None
    sessions: SessionFigures | None = None
    watched: dict[str, list[float | None]] = {}
    watches: list[WatchFigures] = []
    watched_first: str = ""
    answers: AnswerFigures | None = None
    source: SourceFigures | None = None
    agents: list[AgentFigures] = []
    max_wait_ns: int
    scenario: dict[str, Any] = {}
    plan: dict[str, Any] = {}
    host: Host


class _Version(msgspec.Struct):
    format_version: int


def refuse_newer(path: Path, data: bytes) -> None:
    """Raise InputError if a newer version of replay wrote `data`.

    Raise msgspec.DecodeError if `data` has no format version.
    """
    version = msgspec.json.decode(data, type=examined(_Version)).format_version
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}; this replay reads up to {FORMAT_VERSION}",
            hint="install a newer version of replay",
        )
