"""Compares sides that a program gives as runs, paths, or lists of them."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from replay.errors import UsageError
from replay.results.run import Run

from .decision import Options
from .design import Asked
from .metrics import DEFAULT, parse_metric
from .sides import sides_of
from .verdict import Comparison, compare_sides

OneRun = Run | str | PathLike[str]
Runs = OneRun | Sequence[OneRun]


def compare_given(
    sides: tuple[Runs, Runs],
    labels: tuple[str, str],
    *,
    tolerance: float | str,
    error_tolerance: float | str,
    metrics: Sequence[str],
    routes: int | Sequence[str],
    design: Asked,
    unit: str,
    sequential: bool,
) -> Comparison:
    """Compare two sides.

    Raise UsageError for a wrong option or an empty side, and the errors of `sides_of` and `compare_sides`.
    """
    for name in metrics:
        parse_metric(name)
    if labels[0] == labels[1]:
        raise UsageError(f"both sides are called {labels[0]!r}", hint='name them: labels=("old", "new")')
    options = Options(
        tolerance=parse_tolerance("tolerance", tolerance),
        error_tolerance=parse_tolerance("error_tolerance", error_tolerance),
        metrics=tuple(metrics) or DEFAULT,
        routes=routes if isinstance(routes, int) else tuple(routes),
        design=design,
        unit=unit,
        sequential=sequential,
    )
    base, new = map(_paths, sides)
    return compare_sides(*sides_of(labels[0], base, labels[1], new, unit), options)


def parse_tolerance(name: str, given: float | str) -> float:
    """Return a tolerance as a ratio, from a ratio (0.1) or a percentage ("10%", "10").

    Raise UsageError if it is neither, if it is not above 0, if a number is above 1, or a percentage above 10,000.
    """
    try:
        value = float(given.strip().removesuffix("%")) / 100 if isinstance(given, str) else float(given)
    except ValueError:
        value = -1.0
    if not 0 < value <= 100:
        raise UsageError(
            f"{name}: {given!r} is not a tolerance above 0 and up to 10,000%", hint="give 10%, for example"
        )
    if not isinstance(given, str) and value > 1:
        raise UsageError(
            f"{name}: {given!r} is a ratio, so it allows {100 * value:g}%",
            hint=f'write {name}={value / 100:g}, or {name}="{100 * value:g}%" if you mean that',
        )
    return value


def _paths(side: Runs) -> list[Path]:
    given = [side] if isinstance(side, Run | str | PathLike) else list(side)
    if not given:
        raise UsageError("a side has no runs", hint="give a run, a folder of runs, or a list of them")
    return [one.folder.path if isinstance(one, Run) else Path(one) for one in given]
