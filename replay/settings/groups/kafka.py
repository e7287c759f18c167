"""Settings about Kafka targets: how the producer connects and sends, and how a request becomes a record."""

import re
from typing import Annotated, ClassVar, Literal

import msgspec

from replay.errors import UsageError

from ..kinds import Acks, Duration, Size
from ..naming import NameOf
from ..row import Table, row
from .tls import SecuritySettings

_BRACES = re.compile(r"\{([A-Za-z_]\w*(?:\[\w*\])?)\}")
_OF_RECORDS = re.compile(r"client|method|path|path\[\d{1,4}\]|n|at_ms|uuid|email")


class Kafka(Table, kw_only=True, frozen=True):
    """A Kafka target: the producer's settings by aiokafka's names, and how a request becomes a record."""

    acks: Annotated[
        Acks,
        row(
            "Acknowledgements that a record waits for; 1: the leader's; all: those of all in-sync replicas",
            "--acks",
            used_by="Kafka",
        ),
    ] = Acks("1")
    enable_idempotence: Annotated[
        bool,
        row(
            "Write each record exactly once, even if a batch is sent again; needs acks = all",
            "--idempotence",
            used_by="Kafka",
        ),
    ] = False
    compression_type: Annotated[
        Literal["none", "gzip", "snappy", "lz4", "zstd"],
        row("Compression of record batches", "--compression", used_by="Kafka"),
    ] = "none"
    max_batch_size: Annotated[
        Size, row("Largest record batch; a larger record is sent alone", used_by="Kafka")
    ] = Size(1_000_000)
    tick_ns: Annotated[Duration, row("Records due within this time are sent together", used_by="Kafka")] = (
        Duration(1_000_000)
    )
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        row("Protocol of the brokers' listener", used_by="Kafka"),
    ] = "PLAINTEXT"
    ssl_cafile: Annotated[
        str,
        row(
            "Certificates to trust, a PEM file, relative to the working directory",
            default="the system's",
            used_by="Kafka",
            example="ca.pem",
        ),
    ] = ""
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        row("Mechanism of SASL_PLAINTEXT and SASL_SSL", used_by="Kafka"),
    ] = "PLAIN"
    sasl_plain_username: Annotated[
        str, row("User; $NAME comes from the environment", used_by="Kafka", example="$KAFKA_USER")
    ] = ""
    sasl_plain_password: Annotated[
        str, row("Password; $NAME comes from the environment", used_by="Kafka", example="$KAFKA_PASSWORD")
    ] = ""
    timestamps: Annotated[
        Literal["due", "recorded"],
        row(
            "What CreateTime is: the due time on the wall clock, or the recorded one",
            "--timestamps",
            used_by="Kafka",
        ),
    ] = "due"
    partitions: Annotated[
        Literal["auto", "recorded", "key"],
        row(
            "Partition of a record; auto: the recorded one if the topic has all of them, otherwise by key (murmur2)",
            "--partitions",
            used_by="Kafka",
        ),
    ] = "auto"
    topic_map: Annotated[
        dict[str, str],
        row(
            "Send the records of one topic to another",
            "--topic-map",
            metavar="OLD=NEW",
            used_by="Kafka",
            example={"orders": "orders-staging"},
        ),
    ] = msgspec.field(default_factory=dict)
    key: Annotated[
        str,
        row(
            "Key of the record for a request; may contain {client} {method} {path} {path[1]} {n} {at_ms} {uuid} {email};"
            " empty: no key",
            used_by="Kafka",
        ),
    ] = "{client}"
    value: Annotated[
        str,
        row(
            "Value of the record for a request; {path} is escaped for JSON, {at_ms} is the recorded time",
            used_by="Kafka",
        ),
    ] = '{"at_ms":{at_ms},"client":{client},"method":"{method}","path":"{path}","n":{n}}'
    consume: Annotated[
        bool,
        row(
            "Consume the produced records in a separate consumer group; end_to_end is the time from due to consumed",
            "--consume",
            used_by="Kafka",
        ),
    ] = False
    answers: Annotated[
        str,
        row(
            "Topic of a pipeline's answers; `answer` is the time from due to the consumed answer",
            "--answers",
            metavar="TOPIC",
            default="none",
            used_by="Kafka",
            example="paid",
        ),
    ] = ""
    answers_by: Annotated[
        str,
        row(
            "What an answer has in common with its record: the key, or a header, such as X-Replay, which all records have",
            "--answers-by",
            metavar="key|HEADER",
            used_by="Kafka",
        ),
    ] = "key"


class KafkaSettings(SecuritySettings, kw_only=True, frozen=True):
    """Kafka targets."""

    group: ClassVar[str] = "Kafka"

    kafka: Annotated[Kafka, row("A Kafka target", used_by="Kafka")] = Kafka()


def check(settings: KafkaSettings, name_of: NameOf) -> None:
    """Raise UsageError if the key of a record has an unknown placeholder."""
    keys = [(settings.kafka.key, "kafka.key")]
    keys += [(also.key, f"also[{index}].key") for index, also in enumerate(settings.also) if also.key]
    for text, key in keys:
        for match in _BRACES.finditer(text):
            if not _OF_RECORDS.fullmatch(match[1]):
                raise UsageError(
                    f"{name_of(key)}: there is no placeholder {match[1]!r}",
                    hint="write {client} {method} {path} {path[1]} {n} {at_ms} {uuid} {email}",
                )
