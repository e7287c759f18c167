"""Trace rows to due requests."""
