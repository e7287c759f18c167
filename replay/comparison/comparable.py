"""Checks whether runs can be compared: valid, of the same recording, scenario and machine, and several per side."""

from __future__ import annotations

from replay.results.same_load import changed_settings

from .sides import Side

_MACHINE = ("name", "cpu_model", "cores", "cores_usable")
REASONS_MAX = 5


def invalid(base: Side, new: Side) -> list[str]:
    """Return the runs whose verdict is INVALID, with the reasons. Such runs are refused."""
    found = []
    for side in (base, new):
        for run in side.runs:
            if run.document is not None and run.document.validity.verdict == "INVALID":
                why = "; ".join(reason.message for reason in run.document.validity.reasons)
                found.append(f"{run.name} ({side.label}) is INVALID: {why}")
    return found


def incomparable(base: Side, new: Side) -> list[str]:
    """Return the first reasons, at most REASONS_MAX, why these runs do not allow a comparison of the builds.

    The runs may have different recordings, scenarios or machines, or only some may be closed loops or logs. Logs are
    not checked against each other.
    """
    documents = [
        (run.name, run.document) for side in (base, new) for run in side.runs if run.document is not None
    ]
    if not documents:
        return []
    first_name, first = documents[0]
    found = []
    for name, document in documents[1:]:
        pair = f"{name} and {first_name}"
        if (document.trace and document.trace.digest) != (first.trace and first.trace.digest):
            found.append(f"{pair} replayed different recordings")
        elif document.closed_loop != first.closed_loop:
            found.append(f"only one of {pair} is a closed loop")
        elif changed := changed_settings(document.scenario, first.scenario):
            found.append(f"{pair} had different scenarios ({', '.join(changed)})")
        if any(getattr(document.host, key) != getattr(first.host, key) for key in _MACHINE):
            found.append(f"{pair} were made on different machines")
    names = [run.name for side in (base, new) for run in side.runs if run.document is None]
    if names:
        found.append(f"{names[0]} is a log and {first_name} is a run of replay: they do not measure the same")
    return found[:REASONS_MAX]


def one_run(base: Side, new: Side) -> str:
    """Return the reason why a side of a single run is not enough; empty if neither side is a single run."""
    lone = [side.label for side in (base, new) if len(side.runs) == 1]
    what = f"only one run of {' and of '.join(lone)}, so the variation between runs is not known"
    return f"{what} (at least 4 runs per side are needed)" if lone else ""
