"""The verdict on a merged run, from the findings about the whole run and about each agent."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from replay.ledger.validity import Validity
from replay.ledger.verdicts import WORSE, Reason
from replay.results.document import RunDocument
from replay.results.latencies import Latency
from replay.units import SECOND_NS, counted, format_duration, format_share

from .losses import Loss, cut_off
from .parts import Part

_OF_THE_WHOLE = ("EMPTY", "STATUS_DIFFERS")
"""Findings that only apply to the whole run, because a share may be empty or have few requests of a route."""


def judged(document: RunDocument, *, parts: Sequence[Part], losses: Sequence[Loss]) -> RunDocument:
    """Return the document with the verdict on the whole run.

    Besides the findings about the run and its agents, it depends on lost agents, on agents that ended early, and on the
    errors of their clocks.
    """
    reasons = [
        *_loss_reasons(document, losses),
        *_early_reasons(document, parts, losses),
        *_unbalanced(parts, losses),
        *_clock_reasons(document, parts),
        *_agents_reasons(document.validity, parts),
    ]
    reasons.sort(key=lambda reason: -WORSE[reason.verdict])
    verdict = reasons[0].verdict if reasons else "VALID"
    return msgspec.structs.replace(document, validity=Validity(verdict=verdict, reasons=reasons))


def _loss_reasons(document: RunDocument, losses: Sequence[Loss]) -> list[Reason]:
    """Return one finding about all lost agents, or none."""
    if not losses:
        return []
    missing = sum(loss.unsent + loss.unknown for loss in losses)
    at_most = "up to " if any(loss.unknown for loss in losses) else ""
    found = [f"{loss.name} was lost ({loss.why}): {_loss_words(loss)}" for loss in losses]
    return [
        Reason(
            code="AGENT_LOST",
            verdict="SUSPECT",
            message=f"{'; '.join(found)}{_less(document, missing, at_most)}",
            advice="check the machine and its log; the results cover only the load that was sent",
        )
    ]


def _loss_words(loss: Loss) -> str:
    """Describe what happened to the requests of a lost agent's share."""
    if not loss.unsent and not loss.unknown:
        return "every request of its share is accounted for"
    unsent = f"{_counted(loss.unsent)} of its share {_were(loss.unsent)} not sent" if loss.unsent else ""
    if not loss.unknown:
        return unsent
    if not unsent:
        return f"it is not known whether {_counted(loss.unknown)} of its share {_were(loss.unknown)} sent"
    return f"{unsent}, and it is not known whether {loss.unknown:,} more {_were(loss.unknown)} sent"


def _counted(count: int) -> str:
    return counted(count, "request")


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _less(document: RunDocument, missing: int, at_most: str = "") -> str:
    """Return by how much the load fell short of the plan, as a further sentence; empty if nothing is missing."""
    if not missing:
        return ""
    share = format_share(missing / max(document.accounts.planned, 1))
    return f". The target got {at_most}{share} less than planned"


def _early_reasons(document: RunDocument, parts: Sequence[Part], losses: Sequence[Loss]) -> list[Reason]:
    """Return one finding about all agents that ended early while the run continued, or none.

    If the whole run ended early, its ending has the reason, and there is no such finding.
    """
    gone = {loss.agent for loss in losses}
    early = [part for part in parts if part.share.agent not in gone and part.document.ending.how != "whole"]
    if document.ending.how != "whole" or not early:
        return []
    found = [
        f"{part.name} ended early ({part.document.ending.detail}): {_counted(cut_off(part))} of its share "
        f"{_were(cut_off(part))} not sent"
        for part in early
    ]
    missing = sum(cut_off(part) for part in early)
    return [
        Reason(
            code="AGENT_ENDED_EARLY",
            verdict="SUSPECT",
            message=f"{'; '.join(found)}{_less(document, missing)}",
            advice="find out who ended it; the results cover only the load that was sent",
        )
    ]


def _unbalanced(parts: Sequence[Part], losses: Sequence[Loss]) -> list[Reason]:
    """Report agents that ended normally, but planned another number of requests than their share has.

    That is a bug in replay.
    """
    gone = {loss.agent for loss in losses}
    wrong = [
        f"{part.name} planned {part.planned:,} requests, but its share has {part.share.planned:,}"
        for part in parts
        if part.document.ending.how == "whole" and part.share.agent not in gone
        if part.share.planned and part.planned != part.share.planned
    ]
    if not wrong:
        return []
    return [
        Reason(
            code="UNBALANCED",
            verdict="INVALID",
            message="; ".join(wrong),
            advice="this is a bug of replay: please report it with the run folders",
        )
    ]


def _clock_reasons(document: RunDocument, parts: Sequence[Part]) -> list[Reason]:
    """Report the least certain clock if its error exceeds the run's p90 generator lag and the floor for that figure."""
    lateness = document.latency.lateness
    length_ns = round(document.duration_s * SECOND_NS)
    bound_ns, worst = max((part.share.clock.error_ns(length_ns), -n) for n, part in enumerate(parts))
    if not isinstance(lateness, Latency) or not lateness.count:
        return []
    floor_ns = parts[0].started.limits.lateness_p90_floor_suspect_ns
    if bound_ns <= max(lateness.p90_ns, floor_ns):
        return []
    return [
        Reason(
            code="CLOCK_UNCERTAIN",
            verdict="SUSPECT",
            message=f"the clock of {parts[-worst].name} is known only to within {format_duration(bound_ns)}"
            f"{_changes(parts[-worst])}, but the generator lag of this run is "
            f"{format_duration(lateness.p90_ns)} (p90): agents may have sent at times that differ by this error",
            advice=_clock_advice(parts[-worst], length_ns),
        )
    ]


def _changes(part: Part) -> str:
    """Describe how an agent's clock changed during the run; empty if it did not."""
    clock = part.share.clock
    drift = f"it drifted by {clock.drift_ppm:+.0f} ppm" if clock.drift_ppm else ""
    jump = f"it was set by {format_duration(abs(clock.jumped_ns))}" if clock.jumped_ns else ""
    return f" ({' and '.join(filter(None, (drift, jump)))})" if drift or jump else ""


def _clock_advice(part: Part, length_ns: int) -> str:
    """Return advice on an agent's clock, by the main cause of its error."""
    clock = part.share.clock
    drifted_ns = clock.error_ns(length_ns) - clock.bound_ns - abs(clock.jumped_ns)
    most = max(clock.bound_ns, drifted_ns, abs(clock.jumped_ns))
    if most == abs(clock.jumped_ns):
        return "find out why that machine's CLOCK_MONOTONIC jumped: it may have been suspended, or moved to another host"
    if most == drifted_ns:
        return "check that machine's time synchronization, which may be correcting its clock, or make the run shorter"
    return "run the coordinator nearer to the agents, or reduce other traffic on the network between them"


def _agents_reasons(whole: Validity, parts: Sequence[Part]) -> list[Reason]:
    """Combine the findings about the whole run with those about each agent.

    A finding about an agent replaces a finding about the whole run that has the same code and no worse verdict,
    because it is more specific. With one agent there are only the findings about the whole run.
    """
    if len(parts) == 1:
        return list(whole.reasons)
    own: dict[Reason, list[Part]] = {}
    for part in parts:
        for reason in part.document.validity.reasons:
            if reason.code not in _OF_THE_WHOLE:
                own.setdefault(reason, []).append(part)
    named = [
        reason
        if len(of) == len(parts)
        else msgspec.structs.replace(reason, message=f"{', '.join(p.name for p in of)}: {reason.message}")
        for reason, of in own.items()
    ]
    worst = {reason.code: WORSE[reason.verdict] for reason in sorted(named, key=lambda r: WORSE[r.verdict])}
    return [
        *named,
        *(reason for reason in whole.reasons if WORSE[reason.verdict] > worst.get(reason.code, -1)),
    ]
