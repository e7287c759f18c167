"""The data that the control plane gives a running lane: due requests, addresses, replies to resolve requests."""
