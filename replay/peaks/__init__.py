"""Finds how high a peak a target survives, and whether it recovers."""
