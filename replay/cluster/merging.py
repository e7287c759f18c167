"""Merges the run folders of several agents into one run.

A merged run is a run with more lanes: it has the lanes' memory of all agents, and everything else is computed as
for a run of one process. So merged histograms and counts are exact sums, and the order of merging does not
matter. Data that cannot be added (names, machines, endings) is combined in `merged_facts`, and timelines in
`merged_logs`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from replay.ledger.accounts import Accounts, AccountsDetail, balance, with_rest
from replay.ledger.validity import Validity
from replay.results.agents import AgentClock, AgentFigures, AgentLanes, agent_name
from replay.results.answers import Answers, AnswersWriter
from replay.results.assemble import assemble
from replay.results.document import ClockPair, Note, RunDocument, Started, TargetStart
from replay.results.folder import RunFolder, read_rows
from replay.results.samples import Lookup, RecordedRow, Sample
from replay.units import SECOND_NS
from replay_native.ledger.lane_metrics import LaneMetrics

from .endings import NOT_KNOWN, Cause, ending_of
from .judging import judged
from .losses import Loss, Rest, losses_of, rests_of, sum_of
from .merged_facts import NOTHING_OBSERVED, Observed, whole_facts
from .merged_logs import merge_logs
from .parts import Found, Part, read_parts
from .reported import lane_of
from .share import LostAgent

_NOTHING, _NO_CLOCK = Accounts(), AgentClock()


def merge_runs(
    folders: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    lost: Sequence[LostAgent] = (),
    wall_ns: int | None = None,
    cause: Cause = NOT_KNOWN,
    observed: Observed = NOTHING_OBSERVED,
) -> RunDocument:
    """Merge the run folders of agents into the new run folder `out`, and return its run.json.

    `lost` are agents that were lost, or whose results were not received. `wall_ns` is when the first request was
    due, in ns since the epoch by the coordinator's clock; without it, the time of an agent is used. `cause` is
    the reason why the coordinator ended the run early, `observed` are its own observations. A folder that was
    left by a killed agent is completed first.

    Raises InputError if the folders are not parts of one run, overlap or cannot be read, OutputError if `out` exists or
    cannot be written.
    """
    found = read_parts([Path(folder) for folder in folders], {one.agent for one in lost})
    folder = RunFolder.create(out)
    try:
        return _merged(found, folder, lost, wall_ns, cause, observed)
    except BaseException:
        folder.discard()
        raise


def _merged(
    found: Found,
    folder: RunFolder,
    lost: Sequence[LostAgent],
    wall_ns: int | None,
    cause: Cause,
    observed: Observed,
) -> RunDocument:
    parts, first = found.parts, found.parts[0]
    wall_ns = first.started.start.wall_ns - first.shift_ns if wall_ns is None else wall_ns
    start = ClockPair(first.started.start.monotonic_ns - first.shift_ns, wall_ns)
    idle = {share.agent for share in found.not_begun}
    missing = [one for one in lost if one.agent not in {part.share.agent for part in parts} | idle]
    losses = losses_of(parts, found.not_begun, lost)
    rests = rests_of(parts, losses)
    rest = sum_of(list(rests.values()))
    lanes = _lanes(parts, missing, start.monotonic_ns)
    started = _started(parts, missing, start, observed.scenario)
    problems = merge_logs(parts, folder, wall_ns, observed.samples)
    _merge_answers(parts, folder)
    notes = [Note("LOG_INCOMPLETE", f"{problem}: some of its seconds are missing") for problem in problems]
    facts = whole_facts(
        parts,
        ending_of(parts, [loss.agent for loss in losses], cause),
        _ended_ns(parts, start.monotonic_ns),
        observed,
        agents=_agents(found, missing, losses, rests),
        unsent_rest=rest.unsent,
        unknown=rest.unknown,
        notes=[*notes, *_lost_notes(found, missing)],
    )
    return assemble(
        folder, lanes, started, facts, _lookup(parts), partial(judged, parts=parts, losses=losses)
    )


def _lanes(parts: Sequence[Part], missing: Sequence[LostAgent], start_ns: int) -> list[LaneMetrics]:
    """Return the lanes of all agents, target by target.

    An agent without a folder has one lane for the first target, made from its reports.
    """
    lanes = []
    for target in range(max(len(parts[0].started.targets), 1)):
        for part in parts:
            lanes += part.lanes_at(start_ns, target)
        if target == 0:
            lanes += [lane_of(one, parts[0].started, _rules(parts)) for one in missing if one.counters]
    return lanes


def _rules(parts: Sequence[Part]) -> int:
    metrics = parts[0].lanes[0]
    return metrics.rule_counts.shape[0] if len(metrics.checked) > 1 else 0


def _started(
    parts: Sequence[Part], missing: Sequence[LostAgent], start: ClockPair, scenario: Mapping[str, Any]
) -> Started:
    """Return the facts of the start, with the lanes of all agents.

    If the coordinator's scenario is known, it is used, because the agents' scenarios have values in place of
    files, variables and commands.
    """
    first = parts[0].started
    reported = sum(1 for one in missing if one.counters)
    targets = first.targets or [TargetStart(target=first.target, engine=first.engine)]
    merged = []
    for number, target in enumerate(targets):
        count = sum(len(part.lanes_of(number)) for part in parts) + (reported if number == 0 else 0)
        merged.append(msgspec.structs.replace(target, lanes=count))
    engines = {part.started.engine for part in parts}
    whole = dict(scenario or first.scenario)
    for key in ("connections", "threads"):
        values = [part.started.scenario.get(key) for part in parts]
        if all(isinstance(value, int) for value in values):
            whole[key] = sum(values)  # type: ignore[arg-type]
    return msgspec.structs.replace(
        first,
        start=start,
        targets=merged,
        engine=engines.pop() if len(engines) == 1 else "mixed",
        scenario=whole,
        run_id=parts[0].share.run_id,
    )


def _ended_ns(parts: Sequence[Part], start_ns: int) -> int:
    """Return when the last agent ended, on the clock of the merged run."""
    return max(start_ns + part.shift_ns + round(part.document.duration_s * SECOND_NS) for part in parts)


def _lookup(parts: Sequence[Part]) -> Lookup:
    """Return a function that looks up recorded rows of samples, as the agents found them in the trace."""
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
    """Write the kept responses, agent by agent, with due times since the common instant."""
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


def _lost_notes(found: Found, missing: Sequence[LostAgent]) -> list[Note]:
    """Return notes about data that the results lack, because an agent's folder is missing or cannot be read."""
    notes = []
    for one in missing:
        why = found.unread.get(one.agent, "it was not received")
        words = f"the folder of {agent_name(one.agent, one.host)} is missing or damaged ({why}): the agent has the "
        notes.append(Note("REPORTS_ONLY", words + "counts of its reports, but no samples and no timeline"))
    return notes


def _agents(
    found: Found, missing: Sequence[LostAgent], losses: Sequence[Loss], rests: Mapping[int, Rest]
) -> list[AgentFigures]:
    """Return one entry for each agent. Their accounts add up to those of the whole run."""
    parts = found.parts
    agents = {part.share.agent: _figures_of(part) for part in parts}
    agents |= {
        share.agent: _figures(share.agent, share.host, share.pid, clock=share.clock, planned=share.planned)
        for share in found.not_begun
    }
    rules = _rules(parts)
    for one in missing:
        accounts, _ = balance([lane_of(one, parts[0].started, rules).counters])
        agents[one.agent] = _figures(
            one.agent, one.host, one.pid, accounts, one.clock, planned=one.planned, reported_only=True
        )
    for loss in losses:
        own = agents.get(loss.agent) or _figures(loss.agent, "", 0)
        agents[loss.agent] = msgspec.structs.replace(own, lost=loss.why or "it was lost")
    for agent, rest in rests.items():
        accounts, _ = with_rest(agents[agent].accounts, AccountsDetail(), rest.unsent, rest.unknown)
        agents[agent] = msgspec.structs.replace(agents[agent], accounts=accounts)
    return [agents[number] for number in sorted(agents)]


def _figures(
    agent: int, host: str, pid: int, accounts: Accounts = _NOTHING, clock: AgentClock = _NO_CLOCK, **more: Any
) -> AgentFigures:
    return AgentFigures(
        agent=agent, host=host, pid=pid, accounts=accounts, validity=Validity(), clock=clock, **more
    )


def _figures_of(part: Part) -> AgentFigures:
    share, document = part.share, part.document
    return AgentFigures(
        agent=share.agent,
        host=share.host,
        pid=share.pid,
        accounts=document.accounts,
        validity=document.validity,
        clock=share.clock,
        lanes=AgentLanes(first=share.first_lane, after=share.after_lane, of=share.of_lanes),
        planned=share.planned,
        start_error_ns=part.shift_ns,
        ending=document.ending.how,
        machine=document.host,
    )
