"""Combines a trace and a scenario: when each request is due (`due`), and the figures of the plan (`schedule`)."""
