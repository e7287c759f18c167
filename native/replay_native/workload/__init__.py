"""Kernels that generate and transform traffic, and the figures that verify it."""
