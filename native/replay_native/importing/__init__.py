"""Recordings to columns: log lines, tables, JSON and GoReplay files."""
