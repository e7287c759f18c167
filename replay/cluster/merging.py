"""One run of the run folders of several agents.

A merged run is a run with more lanes: the lanes' memory of all agents is put side by side, and everything else follows
as for a run of one process. So merged histograms and counts are sums, in any order, exact to the last request. What
cannot be added up (names, machines, endings) is put together in `merged_facts`, timelines in `merged_logs`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from replay.errors import InputError
from replay.ledger.accounts import balance
from replay.ledger.validity import Validity
from replay.ledger.verdicts import WORSE, Reason
from replay.results.agents import AgentFigures, AgentLanes, agent_name
from replay.results.answers import Answers, AnswersWriter
from replay.results.assemble import assemble
from replay.results.document import ClockPair, Note, RunDocument, Started, TargetStart
from replay.results.folder import RunFolder, read_rows
from replay.results.latencies import Latency
from replay.results.samples import Lookup, RecordedRow, Sample
from replay.units import SECOND_NS, format_duration, format_share
from replay_native.ledger.lane_metrics import LaneMetrics

from .merged_facts import ending_of, whole_facts
from .merged_logs import merge_logs
from .parts import Part, read_parts
from .reported import lane_of
from .share import LostAgent

_OF_THE_WHOLE = ("EMPTY", "STATUS_DIFFERS")
"""Findings that only matter for the whole run: a share may be empty, and hold few requests of a route."""


class _Loss(NamedTuple):
    """An agent that was lost. Of its share `unsent` requests were not sent, and of `unknown` that is not known."""

    agent: int
    name: str
    why: str
    unsent: int
    unknown: int


def merge_runs(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    lost: Sequence[LostAgent] = (),
    wall_ns: int | None = None,
) -> RunDocument:
    """Merge the run folders of agents into the new run folder `out`; returns its run.json.

    `lost` are agents that died or went silent, whether their folders are there or not. `wall_ns` is when the first
    request was due, in ns since the epoch by the coordinator's clock; without it that of an agent is taken. A folder that
    was left by a killed agent is completed first. InputError if the folders are not parts of one run, or overlap;
    OutputError if `out` exists or cannot be written.
    """
    parts = read_parts([Path(folder) for folder in folders])
    folder = RunFolder.create(out)
    try:
        return _merged(parts, folder, lost, wall_ns)
    except BaseException:
        folder.discard()
        raise


def _merged(
    parts: Sequence[Part], folder: RunFolder, lost: Sequence[LostAgent], wall_ns: int | None
) -> RunDocument:
    first = parts[0]
    wall_ns = first.started.start.wall_ns - first.shift_ns if wall_ns is None else wall_ns
    start = ClockPair(first.started.start.monotonic_ns - first.shift_ns, wall_ns)
    missing = [one for one in lost if one.agent not in {part.share.agent for part in parts}]
    losses = _losses(parts, lost)
    lanes = _lanes(parts, missing, start.monotonic_ns)
    started = _started(parts, missing, start)
    problems = merge_logs(parts, folder, wall_ns)
    _merge_answers(parts, folder)
    notes = [Note("LOG_INCOMPLETE", f"{problem}: seconds of it are missing") for problem in problems]
    facts = whole_facts(
        parts,
        ending_of(parts, [loss.agent for loss in losses]),
        _ended_ns(parts, start.monotonic_ns),
        agents=_agents(parts, missing, losses),
        unsent_lost=sum(loss.unsent for loss in losses),
        unknown=sum(loss.unknown for loss in losses),
        notes=[*notes, *_lost_notes(parts, missing)],
    )
    return assemble(
        folder, lanes, started, facts, _lookup(parts), partial(_judged, parts=parts, losses=losses)
    )


# Lanes


def _lanes(parts: Sequence[Part], missing: Sequence[LostAgent], start_ns: int) -> list[LaneMetrics]:
    """The lanes of all agents, target by target."""
    of_parts = [part.lanes_at(start_ns) for part in parts]
    targets = max(len(parts[0].started.targets), 1)
    lanes = []
    for target in range(targets):
        for own in of_parts:
            count = len(own) // targets
            lanes += own[target * count : (target + 1) * count]
        if target == 0:
            lanes += [lane_of(one, parts[0].started, _rules(parts)) for one in missing if one.counters]
    return lanes


def _rules(parts: Sequence[Part]) -> int:
    metrics = parts[0].lanes[0]
    return metrics.rule_counts.shape[0] if len(metrics.checked) > 1 else 0


def _started(parts: Sequence[Part], missing: Sequence[LostAgent], start: ClockPair) -> Started:
    """The facts of the start, of all lanes."""
    first = parts[0].started
    reported = sum(1 for one in missing if one.counters)
    targets = first.targets or [TargetStart(target=first.target, engine=first.engine)]
    merged = []
    for number, target in enumerate(targets):
        count = sum(len(part.lanes) // len(targets) for part in parts) + (reported if number == 0 else 0)
        merged.append(msgspec.structs.replace(target, lanes=count))
    engines = {part.started.engine for part in parts}
    scenario = dict(first.scenario)
    for key in ("connections", "threads"):
        values = [part.started.scenario.get(key) for part in parts]
        if all(isinstance(value, int) for value in values):
            scenario[key] = sum(values)  # type: ignore[arg-type]
    return msgspec.structs.replace(
        first,
        start=start,
        targets=merged,
        engine=engines.pop() if len(engines) == 1 else "mixed",
        scenario=scenario,
        run_id=parts[0].share.run_id,
    )


def _ended_ns(parts: Sequence[Part], start_ns: int) -> int:
    """When the last agent ended, on the clock of the merged run."""
    return max(start_ns + part.shift_ns + round(part.document.duration_s * SECOND_NS) for part in parts)


def _lookup(parts: Sequence[Part]) -> Lookup:
    """The recorded rows of samples, as the agents found them in the trace."""
    rows = {
        sample.seq: RecordedRow(sample.recorded_ns, sample.method, sample.path)
        for part in parts
        for sample in read_rows(part.folder.samples, Sample)
        if sample.recorded_ns is not None
    }

    def lookup(seqs: list[int]) -> Mapping[int, RecordedRow]:
        return {seq: rows[seq] for seq in seqs if seq in rows}

    return lookup


def _merge_answers(parts: Sequence[Part], folder: RunFolder) -> None:
    """Kept responses, agent by agent, with due times since the common instant."""
    kept = [(part, Answers(part.folder.path)) for part in parts]
    if not any(answers for _, answers in kept):
        return
    writer = AnswersWriter(folder.path)
    try:
        for part, answers in kept:
            for batch in answers.batches():
                columns = {name: batch[name] for name in batch.schema.names}
                columns["due_ns"] = columns["due_ns"].to_numpy() + part.shift_ns
                writer.write(columns)
    finally:
        writer.close()


# Lost agents


def _losses(parts: Sequence[Part], lost: Sequence[LostAgent]) -> list[_Loss]:
    """Every agent that was lost, and what became of its share."""
    told = {one.agent: one for one in lost}
    losses = []
    for part in parts:
        one = told.pop(part.share.agent, None)
        if one is None and part.has_ended:
            continue
        why = one.why if one is not None else part.document.ending.detail
        # Its own folder is exact: nothing is unknown.
        losses.append(_Loss(part.share.agent, part.name, why, max(part.share.planned - part.planned, 0), 0))
    for one in told.values():
        planned = one.counters.get("planned", 0)
        unknown = min(one.unknown, max(one.planned - planned, 0))
        name = agent_name(one.agent, one.host)
        losses.append(_Loss(one.agent, name, one.why, max(one.planned - planned - unknown, 0), unknown))
    return losses + _absent(parts, lost)


def _absent(parts: Sequence[Part], lost: Sequence[LostAgent]) -> list[_Loss]:
    """Agents of which nothing is known: their folders were not given. All of their shares is unknown."""
    share = parts[0].share
    known = {part.share.agent for part in parts} | {one.agent for one in lost}
    absent = [agent for agent in range(share.agents) if agent not in known]
    if not absent:
        return []
    names = ", ".join(f"agent {agent}" for agent in absent)
    if share.planned_whole is None:
        raise InputError(
            f"the folder of {names} of {share.agents} is missing, and how many requests it had is not known",
            hint="give the folders of all agents",
        )
    rest = share.planned_whole - sum(part.share.planned for part in parts) - sum(one.planned for one in lost)
    if rest < 0:
        raise InputError(
            f"the shares have {-rest:,} more requests than the whole run ({share.planned_whole:,}): they overlap, or "
            "belong to different runs"
        )
    why = "no folder of it was given"
    return [_Loss(agent, f"agent {agent}", why, 0, rest if not n else 0) for n, agent in enumerate(absent)]


def _lost_notes(parts: Sequence[Part], missing: Sequence[LostAgent]) -> list[Note]:
    """What the results lack of agents whose folders are missing."""
    return [
        Note(
            "REPORTS_ONLY",
            f"the folder of {agent_name(one.agent, one.host)} is missing: its counts are those of its last report; it has "
            "no samples, and no seconds in the timeline",
        )
        for one in missing
        if one.counters
    ]


# Agents, and the verdict


def _agents(
    parts: Sequence[Part], missing: Sequence[LostAgent], losses: Sequence[_Loss]
) -> list[AgentFigures]:
    why = {loss.agent: loss.why or "it was lost" for loss in losses}
    found = [
        AgentFigures(
            agent=part.share.agent,
            host=part.share.host,
            pid=part.share.pid,
            accounts=part.document.accounts,
            validity=part.document.validity,
            clock=part.share.clock,
            lanes=AgentLanes(
                first=part.share.first_lane, after=part.share.after_lane, of=part.share.of_lanes
            ),
            planned=part.share.planned,
            start_error_ns=part.shift_ns,
            ending=part.document.ending.how,
            lost=why.get(part.share.agent, ""),
            machine=part.document.host,
        )
        for part in parts
    ]
    rules = _rules(parts)
    for one in missing:
        accounts, _ = balance([lane_of(one, parts[0].started, rules).counters])
        found.append(
            AgentFigures(
                agent=one.agent,
                host=one.host,
                pid=one.pid,
                accounts=accounts,
                validity=Validity(),
                clock=one.clock,
                planned=one.planned,
                lost=why[one.agent],
                reported_only=True,
            )
        )
    return sorted(found, key=lambda agent: agent.agent)


def _judged(document: RunDocument, *, parts: Sequence[Part], losses: Sequence[_Loss]) -> RunDocument:
    """The verdict on the whole run: no better than that on an agent, and not VALID if one was lost."""
    reasons = [
        *_loss_reasons(document, losses),
        *_unbalanced(parts, losses),
        *_clock_reasons(document, parts),
        *_agents_reasons(document.validity, parts),
    ]
    reasons.sort(key=lambda reason: -WORSE[reason.verdict])
    verdict = reasons[0].verdict if reasons else "VALID"
    return msgspec.structs.replace(document, validity=Validity(verdict=verdict, reasons=reasons))


def _loss_reasons(document: RunDocument, losses: Sequence[_Loss]) -> list[Reason]:
    """Agents that were lost."""
    if not losses:
        return []
    missing = sum(loss.unsent + loss.unknown for loss in losses)
    share = missing / max(document.accounts.planned, 1)
    found = [
        f"{loss.name} was lost ({loss.why}): {loss.unsent:,} requests of its share were not sent"
        + (f", of {loss.unknown:,} that is not known" if loss.unknown else "")
        for loss in losses
    ]
    return [
        Reason(
            code="AGENT_LOST",
            verdict="SUSPECT",
            message=f"{'; '.join(found)}. The target got {format_share(share)} less than planned",
            advice="look at the machine and its log; the results are those of the load that was sent",
        )
    ]


def _unbalanced(parts: Sequence[Part], losses: Sequence[_Loss]) -> list[Reason]:
    """An agent that ended whole, and did not plan what its share has: a bug."""
    gone = {loss.agent for loss in losses}
    wrong = [
        f"{part.name} planned {part.planned:,} of the {part.share.planned:,} requests of its share"
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
    """Clocks that are known less exactly than the lateness that the run states."""
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
            message=f"the clock of {parts[-worst].name} is known to {format_duration(bound_ns)} only"
            f"{_changes(parts[-worst])}, while the generator lag that this run states is "
            f"{format_duration(lateness.p90_ns)} (p90): agents may have sent that far apart",
            advice="put the coordinator nearer to the agents, or keep the network between them free",
        )
    ]


def _changes(part: Part) -> str:
    """How an agent's clock changed during the run."""
    clock = part.share.clock
    drift = f"it drifted by {clock.drift_ppm:+.0f} ppm" if clock.drift_ppm else ""
    jump = f"it was set by {format_duration(abs(clock.jumped_ns))}" if clock.jumped_ns else ""
    return f" ({' and '.join(filter(None, (drift, jump)))})" if drift or jump else ""


def _agents_reasons(whole: Validity, parts: Sequence[Part]) -> list[Reason]:
    """Findings about the whole run and about each agent. One of an agent takes the place of the same one about the whole,
    since it says where.
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
