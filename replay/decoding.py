"""Types that msgspec decodes to, each examined by only one thread at a time.

msgspec examines a type when it first decodes to it. If two threads cause that at the same time, the process
crashes (seen with msgspec 0.22). A program may call the library from any of its threads, so each type is passed
through `examined` first.
"""

from __future__ import annotations

import threading
from typing import TypeVar

import msgspec

T = TypeVar("T")

_examining = threading.Lock()
_done: set[type] = set()


def examined(kind: type[T]) -> type[T]:
    """Return the type itself, after msgspec has examined it and all types of its fields."""
    if kind not in _done:
        with _examining:
            msgspec.json.Decoder(kind)
            _done.add(kind)
    return kind
