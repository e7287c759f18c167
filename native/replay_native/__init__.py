"""The data plane: Numba kernels over arrays. Plain typed loops, no objects, no exceptions.

Nothing here imports `replay`. Kernels return counts or negative codes; the control plane raises.
"""
