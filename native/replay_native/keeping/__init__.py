"""Kernels for the parts of responses that a run keeps: a digest of each body, chosen headers, and sampled bodies."""
