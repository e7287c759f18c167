"""The sink: an HTTP server for tests and demos, and its queue."""
