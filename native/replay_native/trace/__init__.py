"""Kernels of the columnar trace: dictionaries, routes, order of events."""
