"""Kafka targets: `kafka://HOST:PORT,HOST:PORT/TOPIC`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from replay.errors import UsageError
from replay.settings.target import Target, sendable

KAFKA_PORT = 9_092
EXAMPLE = "write kafka://HOST:PORT,HOST:PORT/TOPIC"
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


@dataclass(frozen=True)
class KafkaTarget(Target):
    """Brokers and a topic.

    `brokers` are all brokers in the URL; the first one is `host` and `port`. `base_path` is the topic. Without it,
    records keep their own topics.
    """

    brokers: tuple[tuple[str, int], ...] = ()


def parse(url: str) -> KafkaTarget:
    """Parse a Kafka target. UsageError if it is invalid."""
    places, _, topic = url.partition("://")[2].partition("/")
    brokers = []
    for place in places.split(","):
        try:
            parts = urlsplit(f"//{place}")
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise UsageError(f"the target {url!r}: {error}", hint=EXAMPLE) from None
        if parts.username is not None or parts.password is not None:
            raise UsageError(
                "the target contains a user name",
                hint="set kafka.sasl_plain_username and kafka.sasl_plain_password",
            )
        if not host or port == 0 or not sendable(place):
            raise UsageError(f"the target {url!r}: {place!r} is not a broker", hint=EXAMPLE)
        brokers.append((host, port or KAFKA_PORT))
    topic = topic.rstrip("/")
    if topic and (not _TOPIC.fullmatch(topic) or topic in (".", "..")):
        raise UsageError(
            f"the target {url!r}: {topic!r} is not a valid topic name",
            hint="a topic name may contain letters, digits, dots, dashes and underscores",
        )
    names = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in brokers]
    return KafkaTarget(url, *brokers[0], topic, ",".join(names), tuple(brokers))
