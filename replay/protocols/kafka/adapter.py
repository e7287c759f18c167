"""Connects Kafka to a run: inspects the topics, connects the lane, and checks the partitions' offsets at the end."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import trio
from aiokafka import TopicPartition

from replay import garbage
from replay.errors import ReplayError, UsageError
from replay.lane import sizing
from replay.lane.contract import LaneRange, LaneSpec
from replay.lane.resolve import resolve
from replay.plan.safety import allowed, check_plan
from replay.plan.schedule import Schedule
from replay.protocols.adapter import ProtocolAdapter
from replay.protocols.names import check_target
from replay.protocols.protocol import TargetPlan
from replay.results.document import (
    KafkaFigures,
    KafkaPartition,
    Note,
    RouteStart,
)
from replay.results.traces import seed_of
from replay.settings.scenario import Scenario
from replay.settings.target import Target
from replay.units import SECOND_NS
from replay_native.ground import shared
from replay_native.ledger.lane_metrics import C, Control, Stop

from . import notes
from .cluster import (
    TopicSettings,
    client_settings,
    look,
    settings_of,
    settled_ends,
)
from .end_to_end import Watch
from .events import MARK, EventRenderer, recorded_topics
from .failures import as_replay_error
from .gate import Check
from .lane import Acknowledged, KafkaLane, LanePlan
from .target import KafkaTarget

SWITCH_INTERVAL_S = 0.0002
"""How long a thread may hold the interpreter, in seconds.

With Python's default of 5 ms, a busy control plane delays a tick.
"""


def topics_of(schedule: Schedule, target: Target) -> tuple[list[str], dict[str, int]]:
    """Return the topics to write to and, for each recorded topic, the index of its target topic.

    Records of topics that `topic_map` does not contain go to the URL's topic. Without a topic in the URL,
    records keep their topic. UsageError if a record would have no topic, or if `topic_map` contains a topic that was
    not recorded.
    """
    kafka = schedule.scenario.kafka
    recorded = recorded_topics(schedule.trace)
    unknown = next((name for name in kafka.topic_map if name not in recorded), None)
    if unknown is not None:
        held = (
            f"the recording's topics are {', '.join(recorded)}"
            if recorded
            else "it is not a recording of Kafka"
        )
        raise UsageError(f"kafka.topic_map: the recording has no topic {unknown!r}", hint=held)
    goes_to = {name: kafka.topic_map.get(name) or target.base_path or name for name in recorded}
    topics = list(dict.fromkeys([*([target.base_path] if target.base_path else []), *goes_to.values()]))
    if not recorded and not target.base_path:
        raise UsageError("the target has no topic", hint=f"--target {target.url.rstrip('/')}/TOPIC")
    if recorded and target.base_path and target.base_path not in goes_to.values():
        topics.remove(target.base_path)
    return topics, {name: topics.index(topic) for name, topic in goes_to.items()}


def keeps_partitions(scenario: Scenario, recorded: dict[str, int], topics: list[str], goes_to: dict[str, int],
                     partitions: dict[str, int]) -> bool:  # fmt: skip
    """Return whether records keep their recorded partition.

    UsageError if they must and a target topic has too few partitions.
    """
    if scenario.kafka.partitions == "key" or not recorded:
        return False
    for name, count in recorded.items():
        topic = topics[goes_to[name]]
        if partitions[topic] < count:
            if scenario.kafka.partitions == "recorded":
                raise UsageError(
                    f"the recording of {name!r} has {count} partitions, but the topic {topic!r} has {partitions[topic]}",
                    hint='add partitions to the topic, or set kafka.partitions = "key"',
                )
            return False
    return True


def producer_settings(scenario: Scenario, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of aiokafka's producer."""
    kafka = scenario.kafka
    if kafka.enable_idempotence and kafka.acks != "all":
        acks: int | str = "all"
    else:
        acks = kafka.acks if kafka.acks == "all" else 1
    return settings | {
        "acks": acks,
        "enable_idempotence": kafka.enable_idempotence,
        "max_batch_size": int(kafka.max_batch_size),
        "request_timeout_ms": max(int(scenario.timeout_ns // 1_000_000), 1_000),
        "retry_backoff_ms": 100,
    }


@dataclass(slots=True)
class _Fitted:
    """One run against Kafka: its lane, and the partitions' end offsets before it.

    `parts` are the partitions that this process writes to: all, or those of its share. `moved` says how far
    their end offsets moved, None until that is known.
    """

    target: KafkaTarget
    scenario: Scenario
    settings: dict[str, Any]
    before: dict[TopicPartition, int]
    parts: tuple[TopicPartition, ...]
    lane: KafkaLane
    interval_s: float
    watch: Watch | None = None
    known: list[Note] = field(default_factory=list)
    described: dict[str, TopicSettings] = field(default_factory=dict)
    spec: LaneSpec | None = None
    moved: dict[TopicPartition, int] | None = None

    async def engine(self, spec: LaneSpec) -> None:
        """Run the lane to its end, wait for the consumer, and ask the brokers for the partitions' end offsets."""
        self.spec = spec
        if self.watch is not None:
            self.watch.record_into(spec.metrics)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self.lane.run, spec)
            if self.watch is not None:
                await trio.to_thread.run_sync(
                    self.watch.finish, self.scenario.timeout_ns / SECOND_NS, self._hurries
                )
            await trio.to_thread.run_sync(self._ask_ends)

    def _ask_ends(self) -> None:
        """Find out how far each partition's end offset moved; blocks."""
        acknowledged = self.lane.outcomes.acknowledged
        least = {part: self.before[part] + acknowledged[part] for part in self.parts}
        try:
            ends = settled_ends(self.target, self.settings, least, self.lane.plan.check)
        except ReplayError:
            return
        self.moved = {part: ends[part] - self.before[part] for part in self.parts if part in ends}

    def _hurries(self) -> bool:
        """Return whether the run has been asked to stop."""
        assert self.spec is not None
        return bool(shared.read_word(self.spec.metrics.control, Control.STOP) != Stop.RUN)

    def figures(self) -> KafkaFigures:
        """Return the figures of run.json that are specific to Kafka."""
        outcomes, moved = self.lane.outcomes, self.moved
        consumed, lag_max = self.watch.figures() if self.watch is not None else ({}, {})
        return KafkaFigures(
            brokers=self.target.authority,
            settings={k: v for k, v in self.scenario.saved()["kafka"].items() if "sasl_plain" not in k},
            partitions=[
                KafkaPartition(
                    topic=part.topic,
                    partition=part.partition,
                    acknowledged=outcomes.acknowledged[part],
                    moved=None if moved is None else moved.get(part),
                )
                for part in self.parts
            ],
            errors=dict(outcomes.errors.most_common()),
            late=outcomes.late,
            offsets_agree=self._agree(),
            missing=sum(self._missing().values()),
            consumed=consumed,
            lag_max=lag_max,
            consumer=str(self.watch.problem or "") if self.watch is not None else "",
            hosts_refused=self._refused(),
        )

    def notes(self) -> list[Note]:
        """Return notes on what was known before the run and on what went wrong during it."""
        outcomes = self.lane.outcomes
        return [
            *self.known,
            *notes.too_large(outcomes.too_large, self.described),
            *notes.missing(self._missing()),
            *notes.lost(outcomes.lost),
        ]

    def _refused(self) -> list[str]:
        """Return the hosts that the cluster advertised during the run and that are not allowed."""
        return sorted({*self.lane.gate.refused, *(self.watch.refused if self.watch is not None else ())})

    def _agree(self) -> bool | None:
        """Return whether the end offsets moved as far as the records' outcomes allow; None if that is not known.

        No acknowledged record may be missing, and over all partitions, the offsets moved by at most the acknowledged
        records and those whose outcome is not certain (errors, time-outs, in flight).
        """
        if self.moved is None or self.spec is None:
            return None
        counters = self.spec.metrics.counters
        acknowledged = sum(self.lane.outcomes.acknowledged.values())
        doubtful = int(counters[C.error] + counters[C.timeout] + counters[C.in_flight])
        return not self._missing() and acknowledged <= sum(self.moved.values()) <= acknowledged + doubtful

    def _missing(self) -> dict[TopicPartition, int]:
        """Count, by partition, the acknowledged records that the partition's end offset does not cover."""
        acknowledged = self.lane.outcomes.acknowledged
        found = {part: acknowledged[part] - moved for part, moved in (self.moved or {}).items()}
        return {part: count for part, count in found.items() if count > 0}

    def close(self) -> None:
        """Close the lane and the consumer, and restore the interpreter's settings."""
        sys.setswitchinterval(self.interval_s)
        gc.unfreeze()
        self.lane.close()
        if self.watch is not None:
            self.watch.close()


class KafkaPlan(TargetPlan):
    """One Kafka target of a run."""

    def check(self) -> None:
        """See `TargetPlan`."""
        check_target(self.schedule, self.found)

    async def open(self, run_id: str, first_route: int) -> ProtocolAdapter:
        """See `TargetPlan`."""
        return await open_kafka(self, run_id, first_route)


async def open_kafka(plan: KafkaPlan, run_id: str, first_route: int) -> ProtocolAdapter:
    """Prepare a run against Kafka. ReplayError if the run is not possible or not allowed."""
    schedule, scenario, target = plan.schedule, plan.schedule.scenario, plan.target
    assert isinstance(target, KafkaTarget)
    settings = client_settings(target, scenario.kafka)
    check = _check_for(schedule, target, scenario)
    topics, goes_to = topics_of(schedule, target)
    answers = _answers_topic(scenario, topics)
    cluster = await trio.to_thread.run_sync(look, target, settings, [*topics, *answers], check)
    await _check_hosts(cluster.hosts, target, scenario, check)
    recorded = recorded_topics(schedule.trace)
    keep = keeps_partitions(scenario, recorded, topics, goes_to, cluster.partitions)
    mark = f"{run_id}-".encode() if scenario.kafka.answers_by == MARK else b""
    trace_seed = seed_of(run_id) if scenario.traceparent else 0
    partitions = [cluster.partitions[topic] for topic in topics]
    renderer = EventRenderer(schedule, goes_to, partitions, keep, mark, trace_seed)
    parts = cluster.parts(topics)
    own = own_parts(parts, plan.share)
    described = await trio.to_thread.run_sync(settings_of, target, settings, topics, check)
    known: list[Note] = []
    if scenario.kafka.timestamps == "recorded":
        known = notes.too_old(schedule.plan.recorded_from_ns, described)
    watch = None
    if (scenario.kafka.consume and own) or answers:
        start = partial(
            Watch,
            target,
            scenario.kafka,
            f"replay-{run_id}",
            tuple(own.values()),
            cluster.parts(answers),
            scenario.timeout_ns,
            allowed(scenario),
        )
        watch = await trio.to_thread.run_sync(start)
    try:
        lane = await _connected(
            target,
            scenario,
            producer_settings(scenario, settings),
            parts,
            check,
            tuple(_batch_bytes(scenario, described.get(part.topic)) for part in parts),
            first_route,
            _acknowledged(watch, own) if watch else None,
        )
    except BaseException:
        if watch is not None:
            watch.close()
        raise
    fitted = _Fitted(
        target,
        scenario,
        settings,
        cluster.ends,
        tuple(own.values()),
        lane,
        sys.getswitchinterval(),
        watch,
        known,
        described,
    )
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    garbage.shorten_pauses()
    entries, ring_bytes = sizing.feed_size(schedule, scenario, renderer.typical_bytes, 1)
    return ProtocolAdapter(
        engine_name="kafka",
        engine=fitted.engine,
        trace_seed=trace_seed,
        routes=[RouteStart(f"PRODUCE {part.topic}/{part.partition}") for part in parts],
        renderer=renderer,
        connections=[1],
        feed=(entries, max(ring_bytes, 2 * renderer.largest_bytes)),
        tick_ns=int(scenario.kafka.tick_ns),
        close=fitted.close,
        figures=fitted.figures,
        notes=fitted.notes,
        consumed=watch.kinds if watch else (),
        lag=watch.lag if watch else dict,
        cut=renderer.routes,
    )


def own_parts(parts: Sequence[TopicPartition], share: LaneRange | None) -> dict[int, TopicPartition]:
    """Return the partitions that this process writes to, by index.

    The rule is the one by which `render_events` assigns rows to lanes.
    """
    agents = LaneRange(0, 1, 1) if share is None else share.one_each
    return {index: part for index, part in enumerate(parts) if index % agents.of == agents.first}


def _acknowledged(watch: Watch, own: Mapping[int, TopicPartition]) -> Acknowledged:
    """Return the lane's callback for acknowledged batches, which passes them to the consumer.

    The consumer knows only this process's partitions, so their indices are translated.
    """
    places = {index: place for place, index in enumerate(own)}
    return lambda index, first, batch: watch.acknowledged(places[index], first, batch)


def _batch_bytes(scenario: Scenario, topic: TopicSettings | None) -> int:
    """Return the largest batch of a topic: the limit of the scenario or of the topic, whichever is lower."""
    wanted = int(scenario.kafka.max_batch_size)
    return min(wanted, topic.largest_bytes) if topic is not None and topic.largest_bytes else wanted


def _answers_topic(scenario: Scenario, topics: list[str]) -> list[str]:
    """Return the topic on which answers are expected, if any. UsageError if consuming could not measure latencies."""
    kafka = scenario.kafka
    if (kafka.consume or kafka.answers) and scenario.closed_loop:
        raise UsageError(
            "a closed loop has no due times, so the latency to a consumer cannot be measured",
            hint="give a rate, or leave out kafka.consume and kafka.answers",
        )
    if kafka.answers in topics:
        raise UsageError(
            f"kafka.answers: {kafka.answers!r} is the topic to which the run writes",
            hint="give the topic on which a pipeline answers, or set kafka.consume = true",
        )
    return [kafka.answers] if kafka.answers else []


def _check_for(schedule: Schedule, target: KafkaTarget, scenario: Scenario) -> Check:
    """Return the check of this run's brokers, both those in the URL and those that the cluster advertises."""
    permitted, origins = allowed(scenario), schedule.trace.requests.hosts
    named = {host for host, _ in target.brokers}

    def check(host: str, addresses: Sequence[str]) -> None:
        permitted.check(host, addresses, advertised=host not in named)
        check_plan(schedule.plan, replace(target, host=host), addresses, origins, scenario)

    return check


async def _check_hosts(hosts: Sequence[str], target: Target, scenario: Scenario, check: Check) -> None:
    """Resolve the brokers and check all their addresses.

    TargetError if a broker has no address, LimitError if an address is not allowed.
    """
    for host in hosts:
        found = await resolve(replace(target, host=host), scenario)
        check(host, [address.host for address in found])


async def _connected(
    target: KafkaTarget, scenario: Scenario, settings: dict[str, Any], parts: tuple[TopicPartition, ...],
    check: Check, batch_bytes: tuple[int, ...], first_route: int, acknowledged: Acknowledged | None,
) -> KafkaLane:  # fmt: skip
    kafka = scenario.kafka
    lane = KafkaLane(
        LanePlan(
            producer=settings,
            partitions=parts,
            check=check,
            first_route=first_route,
            batch_bytes=batch_bytes,
            tick_ns=int(kafka.tick_ns),
            compression=None if kafka.compression_type == "none" else kafka.compression_type,
            acknowledged=acknowledged,
        )
    )
    try:
        await trio.to_thread.run_sync(lane.ready.result)
    except Exception as error:
        refused = next(iter(lane.gate.refused.values()), None)
        raise refused or as_replay_error(error, target.authority) from None
    return lane
