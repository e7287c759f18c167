"""Trace x scenario: when each request is due (`due`), how it is written (`render`), and what is planned (`plan`)."""
