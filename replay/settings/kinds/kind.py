"""The interface of all kinds of settings: how a value is read and printed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self, TypeGuard

from replay.errors import UsageError


class Kind(ABC):
    """A value that a scenario writes as text with a unit or a grammar of its own, and the code uses as a number or text."""

    __slots__ = ()

    forms: ClassVar[str]
    """The form of valid values, for error messages."""

    examples: ClassVar[tuple[Any, ...]]
    """Values that the parser accepts, as a scenario writes them."""

    metavar: ClassVar[str]
    """How help calls a value of this kind."""

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
        """The value of a text or number. UsageError states what is wrong."""

    @abstractmethod
    def written(self) -> object:
        """The value as a scenario file writes it; `parse` reads it back."""

    @classmethod
    def accepts(cls, value: Any) -> bool:
        """Whether a value of this Python type can be parsed at all."""
        if isinstance(value, bool):
            return False
        return isinstance(value, str | int | float) or (cls.takes_lists and isinstance(value, list | tuple))


def is_kind(kind: Any) -> TypeGuard[type[Kind]]:
    """Whether a type is one of the kinds."""
    return isinstance(kind, type) and issubclass(kind, Kind)


def read_setting(kind: Any, value: Any) -> Any:
    """`value` as `kind`: the decoding hook of msgspec. ValueError carries a message and, after a NUL, a hint."""
    if isinstance(value, kind):
        return value
    try:
        if not kind.accepts(value):
            raise UsageError(f"{value!r} is of the wrong type", hint=f"write {kind.forms}")
        return kind.parse(value)
    except UsageError as error:
        raise ValueError(f"{error}\0{error.hint}") from None


def setting_text(value: object) -> object:
    """A value as a scenario file writes it: the encoding hook of msgspec."""
    if isinstance(value, Kind):
        return value.written()
    raise TypeError(f"{type(value).__name__} has no written form")
