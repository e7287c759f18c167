"""Sinks by name: those of replay, and those of installed packages (entry point group `replay.sinks`).

An entry point is a function from the text after `=` in `--sink NAME=VALUE` (empty if there is none) to a sink. It
checks the value and opens nothing: an exception refuses the run before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points

from replay.errors import ReplayError, UsageError
from replay.shown import shown
from replay.units import nearest

from . import rows
from .interface import Sink, lacking

GROUP = "replay.sinks"

Factory = Callable[[str], Sink]


def _prometheus(value: str) -> Sink:
    from .metrics.prometheus import prometheus

    return prometheus(value)


def _otlp(value: str) -> Sink:
    from .metrics.otlp import otlp

    return otlp(value)


BUILT_IN: dict[str, Factory] = {
    "csv": rows.csv_rows,
    "jsonl": rows.jsonl,
    "otlp": _otlp,
    "prometheus": _prometheus,
}


def _registered() -> dict[str, list[EntryPoint]]:
    """Return the entry points by name.

    An entry point that is found twice, through two paths to the same package, counts once.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        of_name = found.setdefault(point.name, [])
        if all(point.value != other.value for other in of_name):
            of_name.append(point)
    return found


def names() -> list[str]:
    """Return the names of all sinks, sorted."""
    return sorted({*BUILT_IN, *_registered()})


def make_sink(text: str) -> Sink:
    """Return the sink of `NAME=VALUE` or `NAME`.

    Raises UsageError if no sink has that name, its value is invalid, or its package returns an object that is no sink.
    """
    name, _, value = text.partition("=")
    factory = _factory(name.strip())
    try:
        sink = factory(value)
    except ReplayError:
        raise
    except Exception as error:
        raise UsageError(f"--sink {text}: {_words(error)}") from None
    if missing := lacking(sink):
        made = f"--sink {name}: {type(sink).__name__} is not a sink: it has no {', '.join(missing)}"
        raise UsageError(made, hint="derive it from replay.engine.sinks.Sink")
    return sink


def make_sinks(given: Iterable[str | Sink]) -> list[Sink]:
    """Return sinks from texts, which are parsed as in `make_sink`, and from objects.

    Raises UsageError if an object is not a sink, or if a text is given twice or is not a sink's name and value.
    """
    made: list[Sink] = []
    texts: set[str] = set()
    for each in given:
        if isinstance(each, str):
            if each in texts:
                raise UsageError(f"--sink {each} is given twice")
            texts.add(each)
            made.append(make_sink(each))
        elif missing := lacking(each):
            raise UsageError(f"{type(each).__name__} is not a sink: it has no {', '.join(missing)}")
        else:
            made.append(each)
    return made


def _factory(name: str) -> Factory:
    points = _registered().get(name, [])
    if name in BUILT_IN and not points:
        return BUILT_IN[name]
    if len(points) + (name in BUILT_IN) > 1:
        owners = [*(["replay"] if name in BUILT_IN else []), *map(_owner, points)]
        raise UsageError(
            f"--sink {name}: {' and '.join(owners)} each have a sink of this name", hint="uninstall one"
        )
    if not points:
        guess = nearest(name, names())
        meant = f" (did you mean {guess}?)" if guess else ""
        raise UsageError(f"--sink: there is no sink {name!r}{meant}", hint=f"there are: {', '.join(names())}")
    try:
        factory: Factory = points[0].load()
    except Exception as error:
        raise UsageError(f"--sink {name}: {_owner(points[0])} cannot be loaded: {_words(error)}") from None
    return factory


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def _words(error: Exception) -> str:
    """Return the exception of a package as one line."""
    text = " ".join(str(error).split())
    return shown(
        text if text and isinstance(error, ValueError) else f"{type(error).__name__}: {text}".rstrip(": ")
    )
