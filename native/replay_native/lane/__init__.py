"""The lane: connections, clients and retries around one event loop."""
