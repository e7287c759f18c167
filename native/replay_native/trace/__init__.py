"""Kernels of the columnar trace: dictionaries, routes, the order of events."""
