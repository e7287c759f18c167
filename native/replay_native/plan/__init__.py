"""Kernels that turn the rows of a trace into due requests."""
