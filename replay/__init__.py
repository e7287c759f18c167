"""Replays recorded traffic at the moments it was recorded, and says what users would have felt."""

from ._version import __version__

__all__ = ["__version__"]
