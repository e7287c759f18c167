"""Where to send: a target's URL, taken apart."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import urlsplit

from replay.errors import UsageError


class Target(NamedTuple):
    """Where to send. `base_path` has no slash at its end; `authority` is what Host says by default.

    Of Kafka `brokers` are all that the URL names, the first one is `host` and `port`, and `base_path` is the topic.
    """

    url: str
    host: str
    port: int
    base_path: str
    authority: str
    brokers: tuple[tuple[str, int], ...] = ()

    @property
    def is_secure(self) -> bool:
        """Whether connections are made by TLS."""
        return self.url[:8].lower() == "https://"

    @property
    def is_kafka(self) -> bool:
        """Whether records are produced rather than requests sent."""
        return bool(self.brokers)


def parse_target(text: str) -> Target:
    """A target URL, taken apart. UsageError says what is wrong with it."""
    if not text:
        raise UsageError("no target", hint="give --target http://127.0.0.1:8080")
    example = "write http://HOST:PORT/BASE/PATH"
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise UsageError(f"the target {text!r} has no scheme", hint=f"did you mean http://{text}?")
    if scheme.lower() == "kafka":
        return _parse_kafka(text, rest)
    default_port = {"http": 80, "https": 443}.get(scheme.lower())
    if default_port is None:
        raise UsageError(
            f"the target {text!r}: {scheme} targets cannot be replayed onto; http, https and kafka can",
            hint=example,
        )
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError(f"the target {text!r}: {error}", hint=example) from None
    if not host or not sendable(text):
        raise UsageError(f"the target {text!r} is not a URL", hint=example)
    if parts.username is not None or parts.password is not None:
        raise UsageError("the target holds a user name", hint="give -H 'Authorization: $NAME' instead")
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"the target {text!r} has a query or fragment: only a base path is put before each request"
        )
    if port == 0:
        raise UsageError(f"the target {text!r}: there is no port 0", hint=example)
    name = f"[{host}]" if ":" in host else host
    authority = name if port in (None, default_port) else f"{name}:{port}"
    return Target(text, host, port or default_port, parts.path.rstrip("/"), authority)


KAFKA_PORT = 9_092
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _parse_kafka(text: str, rest: str) -> Target:
    """`kafka://HOST:PORT,HOST:PORT/TOPIC`, taken apart; without a topic records keep theirs."""
    example = "write kafka://HOST:PORT,HOST:PORT/TOPIC"
    places, _, topic = rest.partition("/")
    brokers = []
    for place in places.split(","):
        try:
            parts = urlsplit(f"//{place}")
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise UsageError(f"the target {text!r}: {error}", hint=example) from None
        if parts.username is not None or parts.password is not None:
            raise UsageError(
                "the target holds a user name", hint="set kafka.sasl_plain_username and sasl_plain_password"
            )
        if not host or port == 0 or not sendable(place):
            raise UsageError(f"the target {text!r}: {place!r} is not a broker", hint=example)
        brokers.append((host, port or KAFKA_PORT))
    topic = topic.rstrip("/")
    if topic and (not _TOPIC.fullmatch(topic) or topic in (".", "..")):
        raise UsageError(
            f"the target {text!r}: {topic!r} is not a topic's name",
            hint="a topic's name has letters, digits, dots, dashes and underscores",
        )
    names = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in brokers]
    return Target(text, *brokers[0], topic, ",".join(names), tuple(brokers))


def sendable(text: str) -> bool:
    """Whether a text can stand in a request without quoting: visible ASCII alone."""
    return all("!" <= character <= "~" for character in text)
