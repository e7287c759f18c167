"""Recordings of spans: reads two JSON formats, converts spans to requests, and keeps those that enter the system."""
