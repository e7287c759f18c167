"""Judges a scene: whether each side kept its promise, and whether this machine could measure that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from replay import units
from replay.diagnosis.diagnose import diagnose
from replay.ledger.catalog import GOOD
from replay.peaks.recovery import judge
from replay.peaks.trial import moments
from replay.results.document import Latency
from replay.results.measured import FAILED
from replay.results.run import Run
from replay.results.slo import words_of

from .document import Objective, SceneResult, SceneVerdict, SideResult, SideVerdict
from .machine import OTHERS_SHARE
from .scene import Promise, Scene


def side_result(scene: Scene, promise: Promise, run: Run, place: str, others: float | None) -> SideResult:
    """Return the result of one side.

    `place` is its run folder, relative to the rehearsal's. `others` is the CPU share of other programs; None if it is
    not known.
    """
    document = run.document
    response = document.latency.response
    latency = response if isinstance(response, Latency) and response.count else None
    total = sum(route.count for route in document.routes)
    failed = sum(route.outcomes.get(name, 0) for route in document.routes for name in FAILED)
    good = {route.route: sum(route.outcomes.get(name, 0) for name in GOOD) for route in document.routes}
    recovery, after_s = _recovery(scene, run)
    diagnosis = diagnose(run)
    objectives = [
        Objective(slo=outcome.slo, met=outcome.passed, words=words_of(outcome)) for outcome in document.slo
    ]
    is_met = all(objective.met for objective in objectives) and document.ending.how == "whole"
    verdict: SideVerdict = "PASSED" if is_met and recovery != "DID_NOT_RECOVER" else "FAILED"
    made = SideResult(
        run=place,
        verdict="INVALID" if document.validity.verdict == "INVALID" else verdict,
        validity=document.validity.verdict,
        planned=document.accounts.planned,
        good=sum(good.values()),
        failed_share=(failed + document.accounts.unsent) / max(total + document.accounts.unsent, 1),
        p50_ns=latency.p50_ns if latency else None,
        p99_ns=latency.p99_ns if latency else None,
        objectives=objectives,
        recovery=recovery,
        recovered_after_s=after_s,
        highest=_highest(run, scene.watch),
        good_by_route=good,
        others_cpu_share=others,
        first_resource=diagnosis.first_resource,
        diagnosis=diagnosis.words,
    )
    return msgspec.structs.replace(made, broken=broken(promise, made), doubts=_doubts(run, others))


def _recovery(scene: Scene, run: Run) -> tuple[str, float | None]:
    """Return the verdict on the surge, and the seconds until recovery.

    They are empty and None if neither side promises a verdict, because such scenes leave no time after the surge to
    judge recovery.
    """
    if scene.surge is None or not (scene.before.recovery or scene.after.recovery):
        return "", None
    from_s, until_s = scene.surge.from_ns / units.SECOND_NS, scene.surge.until_ns / units.SECOND_NS
    found = judge(moments(run), from_s, until_s)
    return found.verdict, found.after_s


def _highest(run: Run, names: Sequence[str]) -> dict[str, float | None]:
    rows = run.seconds()
    return {
        name: max((value for row in rows if (value := row.watched.get(name)) is not None), default=None)
        for name in names
    }


def _doubts(run: Run, others: float | None) -> list[str]:
    """Return reasons why the figures of a run may not describe its twin."""
    found = [f"{reason.verdict}: {reason.message}" for reason in run.document.validity.reasons]
    if others is not None and others > OTHERS_SHARE:
        found.append(f"other programs used {units.format_share(others)} of this machine's CPUs")
    return found


def broken(promise: Promise, side: SideResult) -> list[str]:
    """Return the promises that a side did not keep, in words."""
    found = []
    for objective in side.objectives:
        if objective.slo in promise.either:
            continue
        if objective.met == (objective.slo in promise.missed):
            wanted = "missed" if objective.met else "met"
            found.append(f"{objective.slo} should be {wanted}: it {objective.words}")
    if promise.recovery and side.recovery not in promise.recovery:
        found.append(
            f"the verdict on the surge should be {' or '.join(promise.recovery)}: it is {side.recovery}"
        )
    found += [
        f"{name} should reach {limit:g}: its highest value is {_number(side.highest.get(name))}"
        for name, limit in promise.at_least.items()
        if (value := side.highest.get(name)) is None or value < limit
    ]
    found += [
        f"{name} should stay at {limit:g} or below: its highest value is {_number(side.highest.get(name))}"
        for name, limit in promise.at_most.items()
        if (value := side.highest.get(name)) is None or value > limit
    ]
    return found


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"


def scene_verdict(before: SideResult, after: SideResult) -> tuple[SceneVerdict, list[str]]:
    """Return the verdict on a scene, and its reasons.

    If a run is INVALID, or if a promise was broken and there is a doubt about either run, this machine was too
    busy to judge. Kept promises count in spite of doubts, because both sides ran on the same machine.
    """
    sides = (("before", before), ("after", after))
    doubts = [f"{name}: {doubt}" for name, side in sides for doubt in side.doubts]
    unkept = [f"{name}: {each}" for name, side in sides for each in side.broken]
    if any(side.verdict == "INVALID" for _, side in sides):
        return "MACHINE_TOO_BUSY", doubts
    if unkept:
        return ("MACHINE_TOO_BUSY" if doubts else "NOT_AS_PROMISED"), [*unkept, *doubts]
    return "AS_PROMISED", doubts


def scene_result(
    scene: Scene, folder: str, before: SideResult, after: SideResult, took_s: float
) -> SceneResult:
    """Return the result of a scene that was played on both sides."""
    verdict, reasons = scene_verdict(before, after)
    saved = saved_by_route(scene.worth_eur, before, after)
    return SceneResult(
        number=scene.number,
        name=scene.name,
        title=scene.title,
        folder=folder,
        before=before,
        after=after,
        verdict=verdict,
        reasons=reasons,
        saved=saved,
        saved_eur=sum(scene.worth_eur[route] * count for route, count in saved.items()) if saved else None,
        took_s=round(took_s, 1),
    )


def saved_by_route(worth: Mapping[str, float], before: SideResult, after: SideResult) -> dict[str, int]:
    """Return how many more good responses there were after the fix (negative: fewer), for each route that has a worth."""
    return {route: after.good_by_route.get(route, 0) - before.good_by_route.get(route, 0) for route in worth}
