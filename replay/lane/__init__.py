"""The shell of a lane: its contract, its feed, the addresses it connects to, and the native engine."""
