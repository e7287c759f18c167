"""Notifications: a JSON message to web hooks at the start of a run, its first breach, the recovery, and the end.

`messages` says what is sent, `post` sends it. docs/live.md is the reference.
"""
