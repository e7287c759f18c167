"""Benchmarks of replay beside other programs (`make bench`). The results are in docs/benchmarks.md."""
