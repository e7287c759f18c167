"""The facts of a run that `assemble` needs besides started.json and the lanes' memory."""

from __future__ import annotations

import msgspec

from replay.ledger.host import RunDelay

from .agents import AgentFigures
from .document import (
    AnswerFigures,
    Ending,
    KafkaFigures,
    NameFigures,
    Note,
    SourceFigures,
    TraceIdentity,
    WatchFigures,
)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Facts known only at the end of a run.

    `ended_ns` is a time of CLOCK_MONOTONIC. `source` and `trace` are set for a followed run. A run over several
    machines has `agents`, and requests that no lane counted: those that were not sent, by reason (`unsent_rest`), and
    those that may have been sent (`unknown`).
    """

    ending: Ending
    ended_ns: int
    control_cpu_s: float = 0.0
    skipped: dict[str, int] = {}
    lanes_lost: int = 0
    throttled_share: float | None = None
    steal_share: float | None = None
    run_delay: RunDelay | None = None
    peak_rss_bytes: int | None = None
    kafka: list[KafkaFigures | None] = []
    notes: list[Note] = []
    names: list[NameFigures] = []
    watches: list[WatchFigures] = []
    answers: AnswerFigures | None = None
    source: SourceFigures | None = None
    trace: TraceIdentity | None = None
    agents: list[AgentFigures] = []
    unsent_rest: dict[str, int] = {}
    unknown: int = 0
