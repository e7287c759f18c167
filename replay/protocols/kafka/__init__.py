"""Kafka under the same clock: the one package that imports aiokafka.

`protocol` is what the registry finds; `adapter` connects it to a run, whose lane (`lane`) is a thread with an asyncio loop.
"""

from .protocol import KafkaProtocol

__all__ = ["PROTOCOL"]

PROTOCOL = KafkaProtocol()
