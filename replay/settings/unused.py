"""Settings that no target of a scenario looks at: no error, for one scenario may serve several stagings, but to be said."""

from __future__ import annotations

import msgspec

from .scenario import Scenario
from .target import parse_target


def unused_settings(scenario: Scenario) -> list[str]:
    """What was set and is for none of the targets, in words: `tls.insecure (for https targets)`."""
    targets = [parse_target(own.target) for own in scenario.by_target()]
    kafka, protocol = any(target.is_kafka for target in targets), scenario.kafka.security_protocol
    idle = []
    if not any(target.is_secure for target in targets):
        idle += [(key, "https targets") for key in _given(scenario.tls, "tls")]
    for key in _given(scenario.kafka, "kafka"):
        if not kafka:
            idle.append((key, "Kafka targets"))
        elif key.startswith("kafka.ssl_") and "SSL" not in protocol:
            idle.append((key, "kafka.security_protocol SSL and SASL_SSL"))
        elif key.startswith("kafka.sasl_") and not protocol.startswith("SASL"):
            idle.append((key, "kafka.security_protocol SASL_PLAINTEXT and SASL_SSL"))
    whose = dict.fromkeys(whose for _, whose in idle)
    return [f"{', '.join(key for key, of in idle if of == one)} (for {one})" for one in whose]


def _given(table: msgspec.Struct, name: str) -> list[str]:
    """The keys of a table whose values are not the defaults."""
    usual = type(table)()
    keys = table.__struct_fields__
    return [f"{name}.{key}" for key in keys if getattr(table, key) != getattr(usual, key)]
