"""Sets when Python looks for garbage: rarely while a command starts, and in short steps while a lane runs in Python.

It imports nothing else, because the command's entry point uses it before anything is imported.
"""

from __future__ import annotations

import gc

_USUALLY = gc.get_threshold()
_RARELY = (300_000, 10, 10)
"""A command with a small input creates fewer objects, nearly all of which it needs until it ends."""


def collect_rarely() -> None:
    """Let garbage collection begin only after more new objects than a command creates until its work begins."""
    gc.set_threshold(*_RARELY)


def shorten_pauses() -> None:
    """Exclude existing objects from garbage collection, and collect the others often: a pause would delay a lane."""
    gc.freeze()
    if gc.get_threshold() == _RARELY:
        gc.set_threshold(*_USUALLY)
