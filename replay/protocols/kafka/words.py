"""The Kafka part of the printed plan: acknowledgements and batches."""

from __future__ import annotations

from replay import units
from replay.protocols.protocol import Fact
from replay.settings.scenario import Scenario


def bounds(scenario: Scenario) -> list[Fact]:
    """Describe how records are sent, and the time limits.

    The plan has no line about connections, because a producer has one connection per broker, regardless of the
    clients.
    """
    kafka = scenario.kafka
    acks = "all" if kafka.enable_idempotence else kafka.acks
    compressed = "" if kafka.compression_type == "none" else f", {kafka.compression_type}"
    idempotent = ", idempotent" if kafka.enable_idempotence else ""
    waits = (
        f"{units.format_duration(scenario.timeout_ns)} for an acknowledgement,"
        f" {units.format_duration(scenario.max_wait_ns)} until a broker accepts more"
    )
    batches = f"batches every {units.format_duration(kafka.tick_ns)}"
    return [("records", f"acks {acks}{idempotent}{compressed}; {batches}"), ("waits", waits)]
