"""Combines what agents report besides counts: their use of machines, Kafka, names, responses, and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from replay.ledger.host import RunDelay
from replay.results.document import (
    AnswerFigures,
    Ending,
    NameFigures,
    Note,
    RunDocument,
    WatchFigures,
)
from replay.results.facts import Facts
from replay.results.notes import COMPUTED

from .merged_kafka import merged_kafka
from .merged_logs import Watched
from .parts import Part

CHANGES_KEPT = 100


class Observed(NamedTuple):
    """What the coordinator observed itself.

    `scenario` is its scenario as a run folder keeps it (empty: not known). `samples` are those of the watched
    figures by the number of the second (from 1), and `watches` describe these figures. `notes` report losses of
    sinks and pauses of the coordinator.
    """

    scenario: dict[str, Any]
    samples: Watched
    watches: list[WatchFigures]
    notes: list[Note]


NOTHING_OBSERVED = Observed({}, {}, [], [])


def facts_of(parts: Sequence[Part]) -> dict[str, Any]:
    """Return the arguments of `Facts` that are combined from those of the agents."""
    documents = [part.document for part in parts]
    generators = [document.generator for document in documents]
    notes = notes_of(parts)
    kafka, kafka_notes = merged_kafka(parts)
    return {
        "control_cpu_s": sum(one.control_cpu_s for one in generators),
        "throttled_share": _most(one.throttled_share for one in generators),
        "steal_share": _most(one.steal_share for one in generators),
        "run_delay": _longest(one.run_delay for one in generators),
        "peak_rss_bytes": _sum(one.peak_rss_bytes for one in generators),
        "kafka": kafka,
        "notes": [*notes, *kafka_notes],
        "names": _names(documents),
        "watches": documents[0].watches,
        "answers": answers_of(documents),
    }


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]


def _most(values: Iterable[float | None]) -> float | None:
    return max(_known(values), default=None)


def _sum(values: Iterable[int | None]) -> int | None:
    known = _known(values)
    return sum(known) if known else None


def _longest(delays: Iterable[RunDelay | None]) -> RunDelay | None:
    """Return the delay of the agent that waited for a CPU for the largest share of its time; None if none is known."""
    return max(_known(delays), key=lambda delay: delay.share, default=None)


def notes_of(parts: Sequence[Part]) -> list[Note]:
    """Return the agents' notes that do not follow from other figures.

    A note that not all agents have includes the names of those that have it.
    """
    found: dict[Note, list[Part]] = {}
    for part in parts:
        for note in part.document.notes:
            if note.code not in COMPUTED:
                found.setdefault(note, []).append(part)
    return [
        note
        if len(of) == len(parts)
        else Note(note.code, f"{', '.join(part.name for part in of)}: {note.message}")
        for note, of in found.items()
    ]


def _names(documents: Sequence[RunDocument]) -> list[NameFigures]:
    by_name: dict[str, list[NameFigures]] = {}
    for document in documents:
        for name in document.names:
            by_name.setdefault(name.name, []).append(name)
    return [_merged_name(own) for own in by_name.values()]


def _merged_name(own: Sequence[NameFigures]) -> NameFigures:
    """Add up the lookups of one name by all agents.

    A change that several agents saw is listed once per agent. The first CHANGES_KEPT changes are listed.
    """
    lookups = sum(name.lookups for name in own)
    answers: Counter[str] = Counter()
    for name in own:
        answers.update(name.answers)
    mean_ns = sum(name.lookup_mean_ns * name.lookups for name in own) / max(lookups, 1)
    lost = [name for name in own if name.failed_at_s is not None]
    first_lost = min(lost, key=lambda name: name.failed_at_s or 0.0, default=own[0])
    changes = sorted((change for name in own for change in name.changes), key=lambda change: change.at_s)
    return msgspec.structs.replace(
        own[0],
        lookups=lookups,
        lookups_failed=sum(name.lookups_failed for name in own),
        queries=sum(name.queries for name in own),
        answers=dict(answers),
        lookup_mean_ns=round(mean_ns),
        lookup_max_ns=max(name.lookup_max_ns for name in own),
        changed=sum(name.changed for name in own),
        changes=changes[:CHANGES_KEPT],
        left_out=list(dict.fromkeys(address for name in own for address in name.left_out)),
        no_room=sum(name.no_room for name in own),
        failed_at_s=first_lost.failed_at_s,
        failure=first_lost.failure,
    )


def answers_of(documents: Sequence[RunDocument]) -> AnswerFigures | None:
    """Return the figures of the kept responses of all agents; None if no agent kept any."""
    own = _known(document.answers for document in documents)
    if not own:
        return None
    dropped: Counter[str] = Counter()
    for answers in own:
        dropped.update(answers.dropped)
    sums = {
        name: sum(getattr(answers, name) for answers in own) for name in ("kept", "bodies", "cut", "redacted")
    }
    first: AnswerFigures = own[0]
    return msgspec.structs.replace(first, dropped=dict(dropped), **sums)


def whole_facts(
    parts: Sequence[Part], ending: Ending, ended_ns: int, observed: Observed, **more: Any
) -> Facts:
    """Return the facts of the whole run.

    `more` are further arguments of `Facts`; its notes are added to those of the agents and of the coordinator.
    """
    given = facts_of(parts)
    given["notes"] = [*given["notes"], *more.pop("notes", []), *observed.notes]
    if observed.watches:
        given["watches"] = observed.watches
    return Facts(
        ending=ending, ended_ns=ended_ns, skipped=parts[0].document.accounts_detail.skipped, **given, **more
    )
