"""Measurements beside the peers, in one run: `make bench`. What they say is in docs/benchmarks.md."""
