"""The data plane: Numba kernels over arrays, written as plain typed loops without objects and exceptions.

Nothing here imports `replay`. Kernels report errors as negative codes, and the control plane raises exceptions.
"""
