"""The Kafka protocol. No other package imports aiokafka, except for type checking.

The registry finds `protocol`. `adapter` connects it to a run, and `lane` sends records in a thread with its own
asyncio loop.
"""

from .protocol import KafkaProtocol

__all__ = ["PROTOCOL"]

PROTOCOL = KafkaProtocol()
