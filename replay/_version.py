"""The version. It is declared here alone: hatchling and the command read it."""

__version__ = "0.1.0"
