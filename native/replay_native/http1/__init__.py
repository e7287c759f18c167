"""HTTP/1.1: parsing and inspecting responses, rendering requests."""
