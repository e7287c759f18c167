"""Finds the watched resource that gave way first.

A resource gives way when its figure stays at its limit, or when it refuses work. Resources that wait for it then fill
up, often within the same second, so the order alone is not conclusive.

As the load grows, the use of every resource grows in proportion, and the bottleneck is the resource with the least
capacity left. Therefore each figure's use per load before is multiplied by the load that was due when the first one
gave way. If this load needs all of one resource, and much more of it than of any other, this resource is reported. A
resource that only waits for another one jumps from little use to full use.

If no such resource exists, the one that was nearest to its limit is reported. If two were equally near, the result is
"cannot tell".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from replay.results.timeline import Second
from replay.results.watched import shifted_at
from replay.units import format_share

from .document import How, Resource
from .usage import FULL, LASTING, Samples, Usage, is_beside_another, usages_of

LATER_ROWS = 2
"""A figure that gives way up to this many rows after the harm began may still have caused it. Figures are sampled only
once per second, and must stay at their limits for some samples.
"""

TOGETHER_ROWS = 2
"""Figures that give way within this number of rows after the first one are ranked by how near to their limits they were
before."""

BEFORE_ROWS = 5
"""Number of rows before the first figure gave way over which nearness to the limits is compared."""

CLEARLY_NEARER = 0.1
"""A figure is clearly nearer to its limit than another if its share of the limit is higher by at least this much."""

NEEDED, NEEDED_MORE = 0.9, 1.25
"""The load explains why a resource gave way if it needed at least the share NEEDED of the resource's limit, and at
least NEEDED_MORE times the share that it needed of any other resource."""

LOAD_ROWS = 5
"""The due load is the mean over this many rows, beginning with the row in which the first resource gave way."""

MISSED_SHARE = 0.3
"""A full cache explains why a resource behind it gave way if at least this share of the cache's lookups missed."""

REPLICAS, CACHE = ".replicas", ".cache"
"""Parts of the names of resources that limit others. If the replicas of a service are at their limit, this limit is the
reason why a pool of the service is full. If a cache is too small, the cache is the reason why a pool behind it is
full."""


@dataclass(frozen=True, slots=True)
class Given:
    """The resource that gave way first (None: cannot tell), and the evidence in sentences.

    `resources` contains every figure that gave way or changed.
    """

    first: str | None
    evidence: list[str]
    resources: list[Resource]
    changed_first: str = ""
    """The figure that changed first, by more than the load explains; only set if no limit shows what gave way."""


@dataclass(frozen=True, slots=True)
class _Onset:
    usage: Usage
    row: int
    how: How
    before: float | None
    """The mean share of its limit in the BEFORE_ROWS rows before the first figure gave way; None if it is not known."""
    due: float | None
    """The share of its limit that the load needed when the first figure gave way, by its use per load before that.

    None if too little is known.
    """


def first_of(
    values: Mapping[str, Samples],
    fixed_limits: Mapping[str, float],
    rows: Sequence[Second],
    harmed: int | None,
) -> Given:
    """Find the resource that gave way first, by the watched figures.

    `harmed` is the row from which users felt harm; None if there was no harm.
    """
    usages = usages_of(values, fixed_limits)
    onsets = sorted(_onsets(usages, rows, harmed), key=lambda onset: onset.row)
    resources = [_resource(onset, rows) for onset in onsets] + _changed(values, onsets, rows)
    if harmed is None:
        return Given(None, _nearest(usages), resources)
    causes = [onset for onset in onsets if _may_be_cause(onset, harmed)]
    if not causes:
        return Given(None, _nearest(usages), resources, _changed_first(values, rows, harmed))
    together = _together(causes)
    needed = _needed_most(causes)
    first = needed or together[0]
    if needed is None and len(together) > 1 and not _is_nearer(first, together[1]):
        names = " and ".join(onset.usage.name for onset in together[:2])
        why = f"{names} gave way within {TOGETHER_ROWS} s of each other, and neither was clearly nearer to its limit before"
        return Given(None, [why, *_sentences(together, rows)], resources)
    bound = _bound_by(first, usages, values, harmed)
    evidence = _sentences([first, *(each for each in causes if each is not first)], rows)
    if needed is not None:
        evidence.insert(1, _need(needed, causes))
    if bound is not None:
        name, why = bound
        return Given(name, [why, *evidence], resources)
    return Given(first.usage.name, evidence, resources)


def _onsets(usages: Sequence[Usage], rows: Sequence[Second], harmed: int | None) -> list[_Onset]:
    found = [(usage, *onset) for usage in usages if (onset := _began(usage, harmed)) is not None]
    moved = [row for _, row, _ in found if row > 0 and (harmed is None or row <= harmed + LATER_ROWS)]
    first = min(moved, default=0)
    load = [row.planned / max(row.length_s, 1e-9) for row in rows]
    near = load[first : first + LOAD_ROWS]
    due_per_s = sum(near) / max(len(near), 1)
    return [
        _Onset(
            usage, row, how, usage.mean_used(first - BEFORE_ROWS, first), usage.share_due(load, first, due_per_s)
        )
        for usage, row, how in found
    ]  # fmt: skip


def _began(usage: Usage, harmed: int | None, since: int = 0) -> tuple[int, How] | None:
    """Return the row in which a figure gave way, and how; None if it did not.

    If it gave way long before the harm and recovered, it is evaluated again from its recovery on.
    """
    full, refused = usage.full_at(since), usage.refused_at(since)
    found: tuple[int, How]
    if refused is not None and (full is None or refused <= full):
        found = refused, "refused"
    elif full is not None:
        found = full, "limit"
    else:
        return None
    row = found[0]
    free = usage.free_at(row + 1)
    if harmed is not None and free is not None and free <= harmed and harmed - row > LASTING + LATER_ROWS:
        return _began(usage, harmed, free) or found
    return found


def _may_be_cause(onset: _Onset, harmed: int) -> bool:
    """Return whether a figure gave way in time to cause the harm.

    A cache may be full without harm, so it is no cause by itself; `_bound_by` reports it if something behind it gave
    way.
    """
    is_in_time = onset.row <= harmed + LATER_ROWS and not _was_harmless(onset, harmed)
    return is_in_time and CACHE not in onset.usage.name


def _needed_most(causes: Sequence[_Onset]) -> _Onset | None:
    """Return the resource that the load needed nearly in full, and clearly more than any other; None if there is none.

    Figures of the same part of the target are one resource (`_part`).
    """
    known = sorted(causes, key=lambda onset: -(onset.due or 0.0))
    most = known[0].due or 0.0
    parts = {
        onset.usage.name.rpartition(".")[0] for onset in causes if (onset.due or 0.0) * NEEDED_MORE > most
    }
    return known[0] if most >= NEEDED and len(parts) == 1 else None


def _need(most: _Onset, causes: Sequence[_Onset]) -> str:
    """Return a sentence about the share of its limit that the load needed, and about that of the others."""
    part = _part(most)
    others = [onset.due for onset in causes if _part(onset) != part and onset.due is not None]
    words = (
        f"the load at that time needed {most.due or 0:.0%} of that limit, extrapolated from the use before"
    )
    return words + (f" (of any other that gave way: at most {max(others):.0%})" if others else "")


def _part(onset: _Onset) -> str:
    """Return the part of the target to which a figure belongs: a pool and its queue are one resource."""
    return onset.usage.name.rpartition(".")[0] or onset.usage.name


def _was_harmless(onset: _Onset, harmed: int) -> bool:
    """Return whether a figure was at its limit from its first samples on, long before there was any harm."""
    return _is_at_start(onset) and harmed - onset.row > LASTING + LATER_ROWS


def _is_at_start(onset: _Onset) -> bool:
    known = [at for at, value in enumerate(onset.usage.values) if value is not None]
    return not known or onset.row <= known[0]


def _together(causes: Sequence[_Onset]) -> list[_Onset]:
    """Return the figures that gave way together with the first one; the nearest to its limit comes first."""
    first = min(onset.row for onset in causes)
    near = [onset for onset in causes if onset.row <= first + TOGETHER_ROWS]
    return sorted(near, key=lambda onset: (-(onset.before or 0.0), onset.row))


def _is_nearer(one: _Onset, other: _Onset) -> bool:
    return (one.before or 0.0) - (other.before or 0.0) >= CLEARLY_NEARER or (
        one.row < other.row and (one.before or 0.0) >= (other.before or 0.0)
    )


def _missed_share(values: Mapping[str, Samples], cache: str, harmed: int) -> float | None:
    """Return the share of a cache's lookups that missed in the rows up to the harm.

    The counters `misses` and `hits` beside the cache's figure show it. Return None if one of them has fewer than two
    samples there, or if there were no lookups.
    """
    part = cache.rpartition(".")[0]
    grown = []
    for name in (f"{part}.misses", f"{part}.hits"):
        known = [
            value
            for value in values.get(name, [])[max(harmed - BEFORE_ROWS, 0) : harmed + 1]
            if value is not None
        ]
        if len(known) < 2:
            return None
        grown.append(known[-1] - known[0])
    return grown[0] / sum(grown) if sum(grown) > 0 else None


def _bound_by(
    first: _Onset, usages: Sequence[Usage], values: Mapping[str, Samples], harmed: int
) -> tuple[str, str] | None:
    """Return the figure that limits the one that gave way, and why it is reported instead; None if there is none."""
    service = first.usage.name.split(".")[0]
    for usage in usages:
        if usage is first.usage or usage.name.split(".")[0] != service:
            continue
        used, full = usage.mean_used(harmed, len(usage.used)), usage.full_at()
        if usage.name.endswith(REPLICAS) and used is not None and used >= FULL:
            return usage.name, _stood(usage, f"more load was due than {first.usage.name} could handle")
        missed = _missed_share(values, usage.name, harmed)
        if CACHE in usage.name and full is not None and full <= harmed and (missed or 0) >= MISSED_SHARE:
            why = f"{format_share(missed or 0)} of the lookups missed it, and went to {first.usage.name}"
            return usage.name, _stood(usage, why)
    return None


def _stood(usage: Usage, why: str) -> str:
    limit = next((limit for limit in reversed(usage.limits) if limit is not None), None)
    return f"{usage.name} was at its limit of {limit or 0:g}; {why}"


def _sentences(onsets: Sequence[_Onset], rows: Sequence[Second]) -> list[str]:
    return [_evidence(onset, rows) for onset in onsets]


def _evidence(onset: _Onset, rows: Sequence[Second]) -> str:
    usage = onset.usage
    limit = next((limit for limit in usage.limits[onset.row :] if limit is not None), None)
    at = f"at {rows[onset.row].t_s:.0f} s" if onset.row else "from the start"
    of = "" if limit is None else f" of {limit:g}"
    words = f"{usage.name} reached its limit{of} {at}"
    if onset.how == "refused":
        words = f"{usage.name} refused work {at}" + (f" (its limit is {limit:g})" if limit else "")
    if onset.before is not None:
        words += f"; it was at {format_share(onset.before)} of its limit in the {BEFORE_ROWS} s before any gave way"
    return words


def _resource(onset: _Onset, rows: Sequence[Second]) -> Resource:
    after = onset.usage.mean_used(onset.row, len(rows))
    return Resource(
        name=onset.usage.name,
        at_s=rows[onset.row].t_s,
        how=onset.how,
        evidence=_evidence(onset, rows),
        used_before=None if onset.before is None else round(onset.before, 4),
        used_after=None if after is None else round(after, 4),
        at_start=_is_at_start(onset),
    )


def _changed(
    values: Mapping[str, Samples], onsets: Sequence[_Onset], rows: Sequence[Second]
) -> list[Resource]:
    """Return the figures that changed without giving way, in the order of time."""
    given = {onset.usage.name for onset in onsets}
    found = []
    for name, samples in values.items():
        at = None if name in given or is_beside_another(name, values) else shifted_at(samples)
        if at is not None:
            evidence = f"{name} changed at {rows[at].t_s:.0f} s"
            found.append(Resource(name=name, at_s=rows[at].t_s, how="changed", evidence=evidence))
    return sorted(found, key=lambda resource: resource.at_s)


def _changed_first(values: Mapping[str, Samples], rows: Sequence[Second], harmed: int) -> str:
    """Return the figure that changed first before the harm; empty if none did.

    It must have changed both by itself and relative to the load. The second change may be found up to LATER_ROWS
    after the harm.
    """
    load = [_load(rows, at) for at in range(len(rows))]
    found = []
    for name, samples in values.items():
        if is_beside_another(name, values) or (at := shifted_at(samples)) is None or at > harmed:
            continue
        by_load = [
            value / per_s if value is not None and per_s > 0 else None
            for value, per_s in zip(samples, load, strict=False)
        ]
        beyond = shifted_at(by_load)
        if beyond is not None and max(at, beyond) <= harmed + LATER_ROWS:
            found.append((max(at, beyond), at, name))
    return min(found)[2] if found else ""


def _load(rows: Sequence[Second], at: int) -> float:
    """Return the requests due per second in the LASTING rows up to `at`."""
    near = rows[max(at - LASTING + 1, 0) : at + 1]
    return sum(row.planned for row in near) / max(sum(row.length_s for row in near), 1e-9)


def _nearest(usages: Sequence[Usage]) -> list[str]:
    """Return a sentence about the figure that came nearest to its limit; an empty list if no figure has a limit."""
    known = sorted(((usage.highest or 0.0, usage.name) for usage in usages if usage.has_limit), reverse=True)
    if not known:
        return []
    share, name = known[0]
    return [f"{name} came nearest to its limit: {format_share(share)} of it"]
