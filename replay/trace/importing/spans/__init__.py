"""Recordings of spans: reads two JSON formats, converts spans to requests, and selects those that enter the system."""
