"""One recording format per module."""
