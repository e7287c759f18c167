"""Runs a schedule: lanes that send on time, and the Trio nursery that feeds, watches and stops them."""

from .nursery import run

__all__ = ["run"]
