"""The parts of responses that a run keeps: a digest of each body, chosen headers, and bodies by sample."""
