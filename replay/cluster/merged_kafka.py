"""Kafka's figures of all agents, combined into those of the whole run.

Each agent writes to its own partitions, so the partitions of all agents are listed together. How far the ends of the
partitions moved is compared with the acknowledged records of the whole run, as in a run of one process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from replay.results.document import Consumed, KafkaFigures, KafkaPartition, Note
from replay_native.ledger.lane_metrics import C

from .parts import Part

NOT_COMPARED = "OFFSETS_NOT_COMPARED"


def merged_kafka(parts: Sequence[Part]) -> tuple[list[KafkaFigures | None], list[Note]]:
    """Return Kafka's figures of each target (None for other targets), and notes on impossible comparisons."""
    of_each = [
        [target.kafka for target in part.document.targets] if part.document.targets else [part.document.kafka]
        for part in parts
    ]
    figures: list[KafkaFigures | None] = []
    notes: dict[Note, None] = {}
    for target, own in enumerate(zip(*of_each, strict=True)):
        known = [one for one in own if one is not None]
        if not known:
            figures.append(None)
            continue
        why = _why_not_compared(parts, own)
        if why:
            notes[Note(NOT_COMPARED, why)] = None
        figures.append(_merged(known, None if why else _doubtful(parts, target)))
    return figures, list(notes)


def _why_not_compared(parts: Sequence[Part], own: Sequence[KafkaFigures | None]) -> str:
    """Return why offsets cannot be compared over the whole run; empty if they can."""
    what = "the growth of the partitions is not compared with the acknowledged records of the whole run"
    silent = [part.name for part, kafka in zip(parts, own, strict=True) if kafka is None]
    here = {part.share.agent for part in parts}
    silent += [f"agent {agent}" for agent in range(parts[0].share.agents) if agent not in here]
    if silent:
        return f"{what}: the figures of {', '.join(silent)} are missing"
    written = Counter(
        (one.topic, one.partition) for kafka in own if kafka is not None for one in kafka.partitions
    )
    if any(count > 1 for count in written.values()):
        return f"{what}: several agents wrote to the same partitions"
    return ""


def _doubtful(parts: Sequence[Part], target: int) -> int:
    """Return the number of a target's records that were not acknowledged, although a broker may have them."""
    lanes = [metrics for part in parts for metrics in part.lanes_of(target)]
    return sum(int(metrics.counters[code]) for metrics in lanes for code in (C.error, C.timeout, C.in_flight))


def _merged(own: Sequence[KafkaFigures], doubtful: int | None) -> KafkaFigures:
    """Merge the figures of one target. Offsets are compared if `doubtful` is given."""
    partitions = _partitions(own)
    missing = sum(kafka.missing for kafka in own)
    lag: dict[str, int] = {}
    errors: Counter[str] = Counter()
    for kafka in own:
        errors.update(kafka.errors)
        for name, count in kafka.lag_max.items():
            lag[name] = max(count, lag.get(name, 0))
    return msgspec.structs.replace(
        own[0],
        partitions=partitions,
        errors=dict(errors.most_common()),
        late=sum(kafka.late for kafka in own),
        offsets_agree=None if doubtful is None else _agree(partitions, missing, doubtful),
        missing=missing,
        consumed=_consumed(own),
        lag_max=lag,
        consumer="; ".join(dict.fromkeys(kafka.consumer for kafka in own if kafka.consumer)),
        hosts_refused=list(dict.fromkeys(host for kafka in own for host in kafka.hosts_refused)),
    )


def _partitions(own: Sequence[KafkaFigures]) -> list[KafkaPartition]:
    """Return the partitions of all agents.

    If several agents wrote to a partition, the entry has no `moved`, because the movement of its end belongs to
    none of them alone.
    """
    found: dict[tuple[str, int], KafkaPartition] = {}
    for kafka in own:
        for one in kafka.partitions:
            key = (one.topic, one.partition)
            known = found.get(key)
            found[key] = one if known is None else KafkaPartition(
                topic=one.topic, partition=one.partition, acknowledged=known.acknowledged + one.acknowledged
            )  # fmt: skip
    return [found[key] for key in sorted(found)]


def _agree(partitions: Sequence[KafkaPartition], missing: int, doubtful: int) -> bool | None:
    """Return whether acknowledged <= moved <= acknowledged + failed + in flight, over all partitions.

    It is False if acknowledged records are missing, and None if the movement of a partition's end is not known.
    """
    moved = [one.moved for one in partitions]
    if any(one is None for one in moved):
        return None
    acknowledged = sum(one.acknowledged for one in partitions)
    return not missing and acknowledged <= sum(one or 0 for one in moved) <= acknowledged + doubtful


def _consumed(own: Sequence[KafkaFigures]) -> dict[str, Consumed]:
    """Add up what consumers received, by histogram."""
    names = dict.fromkeys(name for kafka in own for name in kafka.consumed)
    found = {}
    for name in names:
        each = [kafka.consumed[name] for kafka in own if name in kafka.consumed]
        found[name] = Consumed(
            count=sum(one.count for one in each),
            missing=sum(one.missing for one in each),
            at_least_ns=min(_known(one.at_least_ns for one in each), default=None),
            strange=sum(one.strange for one in each),
        )
    return found


def _known(values: Iterable[Any]) -> list[Any]:
    return [value for value in values if value is not None]
