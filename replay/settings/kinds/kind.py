"""The interface of all kinds of settings: how a value is parsed and printed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self, TypeGuard

from replay.errors import UsageError


class Kind(ABC):
    """A value with its own syntax in a scenario, such as a number with a unit, and its own Python type."""

    __slots__ = ()

    forms: ClassVar[str]
    """The valid forms of a value, for error messages."""

    examples: ClassVar[tuple[Any, ...]]
    """Values that the parser accepts, as a scenario writes them."""

    metavar: ClassVar[str]
    """The placeholder for a value of this kind in help texts."""

    program_type: ClassVar[str]
    """The type of a value that a Python program passes, as source text for `replay/settings/typed.py`."""

    schema: ClassVar[dict[str, Any]]
    """JSON Schema of a value in a scenario file."""

    takes_lists: ClassVar[bool] = False
    """Whether a scenario may write a list."""

    repeats_flag: ClassVar[bool] = False
    """Whether each use of the flag adds to the list."""

    @classmethod
    @abstractmethod
    def parse(cls, value: Any) -> Self:
        """Parse a value of a type that `accepts` allows. UsageError says what is wrong with an invalid one."""

    @abstractmethod
    def written(self) -> object:
        """Return the value as a scenario file writes it, in a form that `parse` reads."""

    @classmethod
    def accepts(cls, value: Any) -> bool:
        """Return whether a value of this Python type can be parsed at all."""
        if isinstance(value, bool):
            return False
        return isinstance(value, str | int | float) or (cls.takes_lists and isinstance(value, list | tuple))


def is_kind(kind: Any) -> TypeGuard[type[Kind]]:
    """Return whether a type is one of the kinds."""
    return isinstance(kind, type) and issubclass(kind, Kind)


def read_setting(kind: Any, value: Any) -> Any:
    """Convert `value` to `kind`. This is the decoding hook of msgspec.

    The text of a ValueError is the message and, after a NUL, the hint.
    """
    if isinstance(value, kind):
        return value
    try:
        if not kind.accepts(value):
            raise UsageError(f"{value!r} is of the wrong type", hint=f"write {kind.forms}")
        return kind.parse(value)
    except UsageError as error:
        raise ValueError(f"{error}\0{error.hint}") from None


def setting_text(value: object) -> object:
    """Return a value as a scenario file writes it. This is the encoding hook of msgspec."""
    if isinstance(value, Kind):
        return value.written()
    raise TypeError(f"{type(value).__name__} has no written form")
