"""Notifications: a JSON message to web hooks at the start of a run, its first breach, the recovery, and the end.

`messages` creates the messages, and `post` sends them. docs/live.md is the reference.
"""
