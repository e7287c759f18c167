"""Kafka: records rendered, batched, sealed and acknowledged."""
