"""Permutation tests over runs, and simulated runs to calibrate them on."""
