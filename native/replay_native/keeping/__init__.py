"""What is kept of responses during a run: a digest of each body, chosen headers, and bodies by sample."""
