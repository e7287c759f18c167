"""Kernels that read recordings into columns: log lines, CSV tables, JSON, GoReplay files and packet captures."""
