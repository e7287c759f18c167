"""Recordings of spans: two JSON formats become spans, spans become requests, and those that enter the system are kept."""
