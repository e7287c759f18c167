"""The rehearsal of an evening: scenes that fail before a fix and recover after it (docs/rehearsal.md)."""
