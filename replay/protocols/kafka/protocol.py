"""Kafka as the protocol of a target: what is planned, checked and printed before a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from replay.errors import UsageError
from replay.lane.resolve import resolve
from replay.plan.schedule import Plan, Schedule
from replay.protocols.protocol import (
    Fact,
    Found,
    Protocol,
    TargetPlan,
    trace_facts,
)
from replay.settings.given import given_keys
from replay.settings.scenario import Scenario
from replay.settings.target import Target

from . import target as targets
from . import words

KERNELS = (
    "ground.shared",
    "templates.trace_context",
    "ledger.hdr",
    "ledger.record",
    "kafka.recordbatch",
    "kafka.events",
    "kafka.produce",
)


_NO_RESPONSES = "a Kafka target sends no responses to evaluate"
_OWN_HEADERS = "a record has only its recorded headers"


class KafkaProtocol(Protocol):
    """Produces records to topics."""

    kernels = KERNELS
    sends_traceparent = True
    has_one_lane = True
    refuses = MappingProxyType(
        {
            "order": "a Kafka target sends no responses to wait for; the records of a partition keep their order",
            "connect": "a Kafka producer has one connection to each broker, shared by all clients",
            "retry.attempts": "a Kafka producer retries by itself",
            "capture": _NO_RESPONSES,
            "check": _NO_RESPONSES,
            "cookies": _NO_RESPONSES,
        }
    )
    refuses_alone = MappingProxyType(
        dict.fromkeys(("headers", "host", "send_headers", "rewrite_host", "client_ip_header"), _OWN_HEADERS)
        | {
            "answers.keep": "a Kafka target sends no responses that could be kept; the answers of a pipeline are"
            " measured with --answers TOPIC"
        }
    )

    def parse(self, url: str) -> targets.KafkaTarget:
        """See `Protocol`."""
        return targets.parse(url)

    def check(self, scenario: Scenario) -> None:
        """See `Protocol`."""
        if scenario.methods == Scenario().methods:
            raise UsageError(
                "producing to a topic is a write, and only GET and HEAD may be sent", hint="--methods all"
            )

    def check_shares(self, scenario: Scenario) -> None:
        """Accept all scenarios but those with kafka.answers, because every agent would receive all answers.

        Records are assigned to machines by partition, so that each partition has one producer.
        """
        if scenario.kafka.answers:
            raise UsageError(
                f"--cluster with kafka.answers: every agent would read all of {scenario.kafka.answers!r}, and count the"
                " answers to the records of other agents as strange",
                hint="leave kafka.answers out (kafka.consume works), or run without --cluster",
            )

    async def find(self, target: Target, scenario: Scenario) -> Found:
        """Look up every broker in the URL. See `Protocol`."""
        assert isinstance(target, targets.KafkaTarget)
        hosts: list[str] = []
        for host in dict.fromkeys(host for host, _ in target.brokers):
            hosts += [place.host for place in await resolve(replace(target, host=host), scenario)]
        return Found(target, tuple(dict.fromkeys(hosts)))

    def plan(self, schedule: Schedule, found: Found) -> TargetPlan:
        """See `Protocol`."""
        from .adapter import KafkaPlan

        return KafkaPlan(schedule, found)

    def unused(self, scenario: Scenario, kafka_targets: Sequence[Target]) -> list[tuple[str, str]]:
        """See `Protocol`."""
        security, unused = scenario.kafka.security_protocol, []
        for key in given_keys(scenario.kafka, "kafka"):
            if not kafka_targets:
                unused.append((key, "Kafka targets"))
            elif key.startswith("kafka.ssl_") and "SSL" not in security:
                unused.append((key, "kafka.security_protocol SSL and SASL_SSL"))
            elif key.startswith("kafka.sasl_") and not security.startswith("SASL"):
                unused.append((key, "kafka.security_protocol SASL_PLAINTEXT and SASL_SSL"))
        return unused

    def facts(self, plan: Plan, scenario: Scenario) -> list[Fact]:
        """See `Protocol`."""
        return trace_facts(scenario)

    def bounds(self, plan: Plan, scenario: Scenario) -> list[Fact]:
        """See `Protocol`."""
        return words.bounds(scenario)
