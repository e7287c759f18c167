"""The rehearsal: scenes in which an app fails before a fix and recovers after it (docs/rehearsal.md)."""
