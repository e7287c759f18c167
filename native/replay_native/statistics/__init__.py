"""Permutation tests over runs, and simulated runs on which they are calibrated."""
