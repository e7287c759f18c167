"""Kernels of the Kafka lanes: render records, build batches, and record acknowledgements."""
