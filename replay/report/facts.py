"""Facts about the source, the targets, the responses and the agents of a run, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from replay.ledger.accounts import Accounts
from replay.ledger.catalog import HISTOGRAMS
from replay.ledger.verdicts import Reason
from replay.results.document import (
    AnswerFigures,
    KafkaFigures,
    NameFigures,
    RunDocument,
    SourceFigures,
    TlsFigures,
)
from replay.results.notes import rejected_words
from replay.units import (
    SECOND_NS,
    counted,
    format_count,
    format_duration,
    format_latency,
    format_rate,
    format_share,
)

from .agents import agents_words

CHANGES_SHOWN = 5


class Fact(NamedTuple):
    """A line with its label.

    The label is empty if the line continues the previous one. `style` is yellow or red for problems.
    """

    label: str
    words: str
    style: str = ""


def facts_of(document: RunDocument) -> list[Fact]:
    """Return the facts about the source, all targets, the kept responses and the agents of a run."""
    several = document.targets
    facts = _source(document.source) if document.source is not None else []
    facts += [
        fact
        for kafka in [each.kafka for each in several] or [document.kafka]
        if kafka
        for fact in _kafka(kafka)
    ]
    facts += [fact for name in document.names for fact in _name(name)]
    if resent := document.accounts_detail.resent:
        why = "the target closed the idle one"
        facts.append(Fact("resent", f"{counted(resent, 'request')}, on a new connection: {why}"))
    if document.answers is not None:
        facts.append(_answers(document.answers))
    facts += [_tls(tls) for tls in [each.tls for each in several] or [document.tls] if tls]
    facts += [
        Fact("" if number else "agents", *line) for number, line in enumerate(agents_words(document.agents))
    ]
    return facts


DROPPED_WORDS = {
    "ring": "responses that arrived faster than they could be written",
    "ring_bodies": "bodies that arrived faster than they could be written",
    "disk": "responses that could not be written (too little disk space, or an error)",
    "too_large": "compressed bodies too large to be decoded",
    "undecodable": "bodies whose content coding could not be undone",
    "header_values": "header values that were cut",
    "late": "responses still unwritten at the end",
}
"""The texts for lost responses, by the reasons in run.json."""


def _answers(answers: AnswerFigures) -> Fact:
    """Return how many responses and bodies were kept, cut and lost, and what was done with their secrets."""
    words = [f"{counted(answers.kept, 'response')} kept"]
    if answers.bodies:
        bodies = f"{counted(answers.bodies, 'body', 'bodies')}"
        words.append(bodies + (f" ({answers.cut:,} cut at the limit)" if answers.cut else ""))
    if answers.bodies and answers.secrets_kept:
        words.append("with their secrets (--keep-answer-secrets)")
    elif answers.redacted:
        words.append(f"secrets redacted in {counted(answers.redacted, 'body', 'bodies')}")
    lost = [f"{count:,} {DROPPED_WORDS.get(reason, reason)}" for reason, count in answers.dropped.items()]
    words += [f"lost: {', '.join(lost)}"] if lost else []
    return Fact("responses", "; ".join(words), "yellow" if lost else "")


def target_words(document: RunDocument) -> str:
    """Return the target, the rate, the engine, the connections and the CPU time."""
    generator = document.generator
    rate = document.accounts.sent / document.duration_s if document.duration_s > 0 else 0.0
    parts = [
        document.target,
        format_rate(rate),
        f"{generator.engine} engine, {counted(generator.lanes, 'lane')}",
    ]
    parts += [counted(document.connections.open_max, "connection"), f"{generator.cpu_s:.2f} s of CPU"]
    return " · ".join(part for part in parts if part)


def sent_words(document: RunDocument) -> str:
    """Return how much of the recording was sent, where rejected lines count as a part of the recording.

    An example is `53.5% of the recording sent (1,000 of 1,868 lines; 868 rejected)`. If only a part of the
    recording was replayed, the rejected lines are assumed to be spread evenly over it. The text has no share in a
    closed loop or if more requests were sent than were recorded. A followed run is compared with the entries of its
    source.
    """
    accounts, trace = document.accounts, document.trace
    if document.source is not None:
        return f"{counted(accounts.sent, 'request')} sent of {counted(document.source.entries, 'entry', 'entries')}"
    rows = document.rows_in_window or accounts.planned + accounts.skipped
    rejected = sum(trace.rejected.values()) if trace else 0
    lines = trace.lines if trace else 0
    sent = format_count(accounts.sent)
    unread = rejected_words(rejected, lines)
    if document.closed_loop or not rows or accounts.sent > rows:
        return f"{sent} requests sent" + (f" ({unread})" if rejected else "")
    share = accounts.sent / rows
    if not rejected:
        return f"{format_share(share)} of the recording sent ({sent} of {format_count(rows)})"
    if rows + rejected == lines:
        share = accounts.sent / lines
        of = f"{sent} of {counted(lines, 'line')}; {rejected:,} rejected"
        return f"{format_share(share)} of the recording sent ({of})"
    share *= 1 - rejected / lines
    return f"about {format_share(share)} of the recording sent ({sent} of {format_count(rows)}; {unread})"


def by_advice(found: Sequence[Reason]) -> dict[str, list[Reason]]:
    """Group findings by their advice, so that a report shows each advice once below its findings."""
    made: dict[str, list[Reason]] = {}
    for reason in found:
        made.setdefault(reason.advice, []).append(reason)
    return made


def ok_words(document: RunDocument) -> str:
    """Return the ok account with its statuses: `ok 300 (of these 4xx 12, 5xx 3)`.

    A complete response of any status counts as ok.
    """
    classes = document.accounts_detail.status_class
    bad = [f"{name} {classes[name]:,}" for name in ("4xx", "5xx") if classes.get(name)]
    return f"ok {document.accounts.ok:,}" + (f" (of these {', '.join(bad)})" if bad else "")


def unknown_words(accounts: Accounts) -> str:
    """Return the number of requests of lost agents that may have been sent, as text; empty if there are none."""
    return f" + unknown {accounts.unknown:,}" if accounts.unknown else ""


def retries_words(document: RunDocument) -> str:
    """Return the load that retries added, in words; empty if the scenario allows no retries."""
    retries = document.retries
    if retries is None:
        return ""
    denied = f", {retries.denied:,} denied by the budget" if retries.denied else ""
    return (
        f"amplification {retries.amplification:.2f}: {counted(retries.at_target, 'request')} at the target for"
        f" {document.accounts.sent:,} sent by users; {retries.retries:,} retries of"
        f" {counted(retries.retried, 'request')}{denied}"
    )


def reasons(counts: dict[str, int]) -> str:
    """Return counts as text, such as ` (max wait 3, capture 180)`; empty if all are 0."""
    named = [f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if count]
    return f" ({', '.join(named)})" if named else ""


def _source(source: SourceFigures) -> list[Fact]:
    """Return the facts about the source of a followed run, and what happened to its entries."""
    delay = f"{format_duration(source.delay_ns)} later ({source.delay_reason})"
    found = [Fact("source", f"{source.source} ({source.format}), {delay}")]
    entries = f"{counted(source.entries, 'entry', 'entries')}: late at source {source.late_at_source:,}"
    entries += f", not due before the end {source.not_due:,}" if source.not_due else ""
    entries += (
        f", not sent {sum(source.skipped.values()):,}{reasons(source.skipped)}" if source.skipped else ""
    )
    entries += f"; {counted(source.copies, 'copy', 'copies')} added by --scale" if source.copies else ""
    found.append(Fact("", entries, "yellow" if source.late_at_source else ""))
    if source.needed_delay_ns is not None and source.needed_delay_max_ns is not None:
        needed, most = format_duration(source.needed_delay_ns), format_duration(source.needed_delay_max_ns)
        found.append(
            Fact("", f"99.9% of the entries needed a delay of at most {needed}, the latest one {most}")
        )
    changes = [
        counted(count, word)
        for count, word in ((source.rotations, "rotation"), (source.truncations, "truncation"))
        if count
    ]
    if changes:
        found.append(Fact("", f"the file had {' and '.join(changes)}"))
    if source.kept:
        found.append(Fact("kept", source.kept))
    return found


def _kafka(kafka: KafkaFigures) -> Iterator[Fact]:
    """Yield how many records were acknowledged, failed and consumed, whether offsets agree, and what went wrong."""
    acknowledged = sum(part.acknowledged for part in kafka.partitions)
    moved = [part.moved for part in kafka.partitions if part.moved is not None]
    ends = f", ends moved by {sum(moved):,}" if moved else ""
    style = "red" if kafka.missing else "" if kafka.offsets_agree else "yellow"
    yield Fact("kafka", f"acknowledged {acknowledged:,}{ends}: {_offsets(kafka)}", style)
    for name, count in kafka.errors.items():
        yield Fact("", f"{name}: {counted(count, 'record')}", "yellow")
    if kafka.hosts_refused:
        hosts = ", ".join(kafka.hosts_refused)
        yield Fact(
            "",
            f"nothing was sent to {hosts}: announced by the cluster during the run, but not permitted by --allow",
            "red",
        )
    for kind, consumed in kafka.consumed.items():
        missing = f", {consumed.missing:,} were not consumed by the end" if consumed.missing else ""
        strange = f"; {consumed.strange:,} match no record of the run" if consumed.strange else ""
        words = next(row.consumed for row in HISTOGRAMS if row.name == kind)
        yield Fact("", f"{consumed.count:,} {words}{missing}{strange}", "yellow" if missing else "")
    behind = max(kafka.lag_max.items(), key=lambda item: item[1], default=("", 0))
    if behind[1]:
        yield Fact("", f"consumer lag: at most {counted(behind[1], 'record')} ({behind[0]})")
    if kafka.consumer:
        yield Fact("", f"the consumer stopped early: {kafka.consumer}", "red")


def _offsets(kafka: KafkaFigures) -> str:
    """Return whether the acknowledged records agree with the partitions' end offsets."""
    if kafka.offsets_agree is None:
        return "offsets unknown"
    if kafka.offsets_agree:
        return "the offsets agree"
    if kafka.missing:
        are = "record is" if kafka.missing == 1 else "records are"
        return f"the offsets do not agree: {kafka.missing:,} acknowledged {are} missing from their partitions"
    return "the offsets do not agree: another producer wrote to the topic too"


def _name(name: NameFigures) -> Iterator[Fact]:
    """Yield what lookups of the target's name cost, if DNS answered them, and at most CHANGES_SHOWN address changes."""
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
    """Return the protocol version, cipher and verification of connections, and the handshakes by kind."""
    peer = tls.peer
    how = f"verified by {peer.ca}" if peer.ca else "verified"
    parts = [peer.version, peer.cipher, how if peer.verified else "NOT VERIFIED (--insecure)"]
    parts += [f"client certificate {peer.client_certificate}"] if peer.client_certificate else []
    counts = {"full": tls.handshakes_full, "resumed": tls.handshakes_resumed, "failed": tls.handshakes_failed}
    made = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    return Fact("TLS", " · ".join([*filter(None, parts), f"handshakes: {made or 0}"]))
