"""`docs/lane-contract.md`, held by both engines."""
