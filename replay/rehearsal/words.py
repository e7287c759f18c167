"""Texts that the terminal and the page share: verdicts, and both sides of a scene as rows."""

from __future__ import annotations

from collections.abc import Iterator

from replay.units import format_latency, format_share

from .document import SceneResult, SideResult
from .scene import Scene

VERDICTS = {
    "AS_PROMISED": "it failed before the fix, and kept its promises after it",
    "NOT_AS_PROMISED": "a promise of this scene was not kept",
    "MACHINE_TOO_BUSY": "this machine was too busy to judge the scene",
}
"""Verdicts on a scene in words."""

ORDINARY = ("started", "stopped")
"""Events of the twin's log that do not indicate a failure."""

Row = tuple[str, str, str]


def rows_beside(scene: Scene, result: SceneResult) -> list[Row]:
    """Return the results of both sides as rows: (name, before, after). Rows that are empty on both sides are left out."""
    return [(name, before, after) for name, before, after in _rows(scene, result) if before or after]


def _rows(scene: Scene, result: SceneResult) -> Iterator[Row]:
    before, after = result.before, result.after
    yield "verdict", before.verdict, after.verdict
    yield "good responses", _of_planned(before), _of_planned(after)
    yield "failed", format_share(before.failed_share), format_share(after.failed_share)
    yield "p50", _ns(before.p50_ns), _ns(after.p50_ns)
    yield "p99", _ns(before.p99_ns), _ns(after.p99_ns)
    if before.recovery or after.recovery:
        yield "after the surge", _recovery(before), _recovery(after)
    yield "gave way first", before.first_resource or "", after.first_resource or ""
    for name in scene.watch:
        yield f"{name}, highest", _number(before.highest.get(name)), _number(after.highest.get(name))
    for name in dict.fromkeys([*before.events, *after.events]):
        if name in ORDINARY:
            continue
        yield (
            f"{name.replace('_', ' ')} (log)",
            f"{before.events.get(name, 0):,}",
            f"{after.events.get(name, 0):,}",
        )
    for route in scene.worth_eur:
        good = (f"{side.good_by_route.get(route, 0):,}" for side in (before, after))
        yield f"good: {route}", next(good), next(good)


def saved_text(scene: Scene, result: SceneResult) -> str:
    """Describe what the fix saved: `112 more POST /v1/users (at 15 EUR): 1,680.00 EUR`.

    The text is empty if the scene does not say what responses are worth.
    """
    if result.saved_eur is None:
        return ""
    counts = ", ".join(
        f"{abs(count):,} {'fewer' if count < 0 else 'more'} {route} (at {scene.worth_eur[route]:g} EUR)"
        for route, count in result.saved.items()
    )
    return f"{counts}: {result.saved_eur:,.2f} EUR"


def seconds_text(length_s: float) -> str:
    """Format a length: `58 s`, `9 min 40 s`."""
    minutes, seconds = divmod(round(length_s), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _of_planned(side: SideResult) -> str:
    return f"{side.good:,} of {side.planned:,}"


def _ns(value: int | None) -> str:
    return "" if value is None else format_latency(value)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def _recovery(side: SideResult) -> str:
    if side.recovered_after_s is None or side.recovery != "RECOVERED":
        return side.recovery
    return f"{side.recovery} after {side.recovered_after_s:.0f} s"
