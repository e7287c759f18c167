"""What a run says of its target in words: a bus, a name, TLS. The terminal and the page show the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..results.document import KafkaFigures, NameFigures, RunDocument, TlsFigures
from ..units import SECOND_NS, counted, format_duration, format_latency, format_rate

CHANGES_SHOWN = 5


class Fact(NamedTuple):
    """One line. `label` is empty where it goes on from the one before; `style` is yellow or red where something is wrong."""

    label: str
    words: str
    style: str = ""


def facts_of(document: RunDocument) -> list[Fact]:
    """All of them, target by target."""
    several = document.targets
    facts = [
        fact
        for kafka in [each.kafka for each in several] or [document.kafka]
        if kafka
        for fact in _kafka(kafka)
    ]
    facts += [fact for name in document.names for fact in _name(name)]
    if resent := document.accounts_detail.resent:
        why = "the target closed the one they had been sent on"
        facts.append(Fact("resent", f"{counted(resent, 'request')} once more, on a new connection: {why}"))
    return facts + [_tls(tls) for tls in [each.tls for each in several] or [document.tls] if tls]


def target_words(document: RunDocument) -> str:
    """Where requests went, how many a second, by which engine."""
    generator = document.generator
    rate = document.accounts.sent / document.duration_s if document.duration_s > 0 else 0.0
    parts = [
        document.target,
        format_rate(rate),
        f"{generator.engine} engine, {counted(generator.lanes, 'lane')}",
    ]
    parts += [counted(document.connections.open_max, "connection"), f"{generator.cpu_s:.2f} s of CPU"]
    return " · ".join(part for part in parts if part)


def reasons(counts: dict[str, int]) -> str:
    """` (max wait 3, capture 180)`; nothing where all are 0."""
    named = [f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if count]
    return f" ({', '.join(named)})" if named else ""


def _kafka(kafka: KafkaFigures) -> Iterator[Fact]:
    """What a broker acknowledged, what it refused by its own words, and whether its offsets say the same."""
    acknowledged = sum(part.acknowledged for part in kafka.partitions)
    moved = [part.moved for part in kafka.partitions if part.moved is not None]
    words = {
        True: "the offsets agree", False: "the offsets do not agree: somebody else wrote as well", None: "offsets unknown",
    }[kafka.offsets_agree]  # fmt: skip
    ends = f", ends moved by {sum(moved):,}" if moved else ""
    yield Fact("kafka", f"acknowledged {acknowledged:,}{ends}: {words}")
    for name, count in kafka.errors.items():
        yield Fact("", f"{name}: {counted(count, 'record')}", "yellow")
    if kafka.hosts_refused:
        hosts = ", ".join(kafka.hosts_refused)
        yield Fact(
            "", f"no records went to {hosts}: the cluster advertised that after the run had begun", "red"
        )
    for kind, consumed in kafka.consumed.items():
        missing = f", {consumed.missing:,} did not until the end" if consumed.missing else ""
        strange = f"; {consumed.strange:,} were no record's" if consumed.strange else ""
        words = {"end_to_end": "were consumed", "answer": "were answered"}[kind]
        yield Fact("", f"{consumed.count:,} {words}{missing}{strange}", "yellow" if missing else "")
    behind = max(kafka.lag_max.items(), key=lambda item: item[1], default=("", 0))
    if behind[1]:
        yield Fact("", f"consumer lag at most {counted(behind[1], 'record')}, of {behind[0]}")
    if kafka.consumer:
        yield Fact("", f"the consumer ended early: {kafka.consumer}", "red")


def _name(name: NameFigures) -> Iterator[Fact]:
    """What looking a target's name up took, and how it moved."""
    if name.source == "dns":
        parts = [
            counted(name.lookups, "lookup"),
            counted(name.queries, "query", "queries") + reasons(name.answers),
        ]
        parts += [f"{format_latency(name.lookup_mean_ns)} each, {format_latency(name.lookup_max_ns)} at most"]
        parts += [f"TTL {name.ttl_s} s"] if name.ttl_s is not None else []
        yield Fact("name", f"{name.name} · {' · '.join(parts)}")
    for change in name.changes[:CHANGES_SHOWN]:
        found = (("added", change.added), ("removed", change.removed), ("refused", change.refused))
        words = "; ".join(f"{word} {', '.join(hosts)}" for word, hosts in found if hosts)
        yield Fact("", f"after {format_duration(round(change.at_s * SECOND_NS))}: {words}")


def _tls(tls: TlsFigures) -> Fact:
    """What connections were secured by, and how often a session was resumed."""
    peer = tls.peer
    how = f"verified by {peer.ca}" if peer.ca else "verified"
    parts = [peer.version, peer.cipher, how if peer.verified else "NOT VERIFIED (--insecure)"]
    parts += [f"client certificate {peer.client_certificate}"] if peer.client_certificate else []
    counts = {"full": tls.handshakes_full, "resumed": tls.handshakes_resumed, "failed": tls.handshakes_failed}
    made = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return Fact("TLS", " · ".join([*filter(None, parts), f"handshakes: {made or 0}"]))
