"""What the control plane gives a lane while it runs: due requests, addresses, replies to resolve requests."""
