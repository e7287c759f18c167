"""A surge in the middle of ordinary traffic, with the unchanged baseline before and after."""

from __future__ import annotations

from pathlib import Path

from replay import units
from replay.errors import InputError
from replay.settings.kinds import Scale, setting_text
from replay.trace import DerivedTraceWriter, Trace
from replay_native.ground.jit import warm

from .steps import Events, Grow
from .transform import check_scale


def surge(
    trace: Trace, out: str | Path, factor: float | Scale, *, start_ns: int, from_ns: int, until_ns: int, end_ns: int,
    seed: int = 1,
) -> Trace:  # fmt: skip
    """Write the trace from `start_ns` to `end_ns`, with more requests from `from_ns` to `until_ns`.

    Those requests are multiplied by `factor`, or by the factor of their route. UsageError for an invalid
    factor; InputError if the trace ends before `end_ns`.
    """
    scale = factor if isinstance(factor, Scale) else Scale([("", factor)])
    check_scale(scale)
    if end_ns > trace.end_ns + 1:
        raise InputError(
            f"{trace.path} is too short for this surge: it ends {units.format_duration(end_ns - trace.end_ns)} early",
            hint="shorten --trigger; a surge needs the baseline before it, and three times its own length after it",
        )
    warm(["workload.scale"])
    factors = {"scale": setting_text(factor)} if isinstance(factor, Scale) else {"factor": factor}
    change = {
        "transform": "surge", **factors, "start_ns": start_ns, "from_ns": from_ns, "until_ns": until_ns,
        "end_ns": end_ns, "seed": seed,
    }  # fmt: skip
    during: Events = lambda: trace.batches(from_ns, until_ns)  # noqa: E731
    grow = Grow(scale, seed)
    with DerivedTraceWriter(out, trace, [change]) as writer:
        for part in (
            trace.batches(start_ns, from_ns), grow.apply(during, trace.requests), trace.batches(until_ns, end_ns),
        ):  # fmt: skip
            for batch in part:
                # With factors by route, a copy may be earlier than an event that was yielded before it.
                writer.add_batch(batch, in_order=grow.ordered)
    assert writer.trace is not None
    return writer.trace
