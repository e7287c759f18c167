"""Finds importers and exporters in installed packages through entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from replay.errors import UsageError
from replay.shown import shown


class Extensions:
    """The entry points of a group, each of which must refer to an object of type `kind`.

    The entry points are searched for once, and each object is loaded when it is requested.
    """

    def __init__(self, group: str, what: str, kind: type) -> None:
        self.group, self._what, self._kind = group, what, kind
        self._points: dict[str, list[EntryPoint]] | None = None
        self._loaded: dict[str, Any] = {}

    def names(self) -> list[str]:
        """Return the names of all entry points, sorted."""
        return sorted(self._found())

    def get(self, name: str, *, is_taken: bool = False) -> Any:
        """Return the object that a package provides under this name.

        Raises UsageError if it cannot be loaded, or if two packages use the name. `is_taken` means that replay
        itself uses the name, which raises the same error.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name, is_taken=is_taken)
        return self._loaded[name]

    def _found(self) -> dict[str, list[EntryPoint]]:
        if self._points is None:
            self._points = {}
            for point in entry_points(group=self.group):
                of_name = self._points.setdefault(point.name, [])
                if all(point.value != other.value for other in of_name):
                    of_name.append(point)
        return self._points

    def _load(self, name: str, *, is_taken: bool) -> Any:
        points = self._found()[name]
        owners = [*(["replay"] if is_taken else []), *map(_owner, points)]
        if len(owners) > 1:
            hint = f"uninstall {' and '.join(owners[1:])}" if is_taken else "uninstall all but one of them"
            raise UsageError(f"{' and '.join(owners)} each have an {self._what} {name!r}", hint=hint)
        try:
            found = points[0].load()
        except Exception as error:
            raise UsageError(
                f"the {self._what} {name!r} of {owners[0]} cannot be loaded:"
                f" {shown(' '.join(f'{type(error).__name__}: {error}'.split()))}",
                hint=f"update or uninstall {owners[0]}",
            ) from None
        if not isinstance(found, self._kind) or getattr(found, "name", name) != name:
            raise UsageError(
                f"the {self._what} {name!r} of {owners[0]} is not an instance of {self._kind.__name__} with that name",
                hint=f"its entry point in {self.group} must refer to an instance whose name is {name!r}",
            )
        return found


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
