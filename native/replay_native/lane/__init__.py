"""The lane: an event loop that sends requests, with their connections, clients and retries."""
