"""The version, in one place: hatchling and the command read it here."""

__version__ = "0.1.0"
