"""Combines a trace and a scenario: when each request is due (`due`), and what is planned (`plan`)."""
