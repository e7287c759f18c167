"""The data that the control plane passes to a running lane: due requests, addresses, replies to resolve requests."""
