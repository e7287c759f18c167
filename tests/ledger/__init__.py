"""What a run counts."""
