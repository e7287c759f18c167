"""The rehearsal: scenes in which an app fails before a fix, and works after it (docs/rehearsal.md)."""
