"""The recording formats, one per module."""
