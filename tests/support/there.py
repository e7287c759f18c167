"""What a test expects to be there: for figures that a run may not have."""

from __future__ import annotations

from typing import TypeVar

from msgspec import UnsetType

Value = TypeVar("Value")


def there(value: Value | UnsetType | None) -> Value:
    """The value; AssertionError where there is none."""
    assert value is not None and not isinstance(value, UnsetType), "it is not there"
    return value
