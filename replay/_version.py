"""The version of replay. It is declared only here: hatchling and the command read it."""

__version__ = "0.1.0"
