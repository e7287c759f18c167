"""Connects HTTP to a run: the engine, the target's addresses, a first handshake, requests, sockets and retries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import trio

from replay.errors import ReplayError, UsageError
from replay.lane import sizing
from replay.lane.contract import Engine, LaneSpec
from replay.lane.name_watch import NameWatch
from replay.lane.retries import retry_of
from replay.lane.tls import Tls, tls_for
from replay.plan.schedule import Schedule
from replay.protocols.adapter import ProtocolAdapter
from replay.protocols.names import FoundName, check_target, follow_name
from replay.protocols.protocol import Found, TargetPlan
from replay.protocols.routes import route_starts
from replay.results.document import Note
from replay.results.traces import seed_of
from replay.units import counted
from replay_native.ground.libc import lanes_supported
from replay_native.lane import libssl
from replay_native.ledger.lane_metrics import C

from .auth import Authoriser
from .probe import shake_hands
from .render_rules import check_bodies, make_render_spec
from .renderer import RequestRenderer
from .session_spec import make_session_spec
from .target import is_secure

ONE_MORE_S = 5.0
"""Time limit in seconds for the handshake after the run."""


def why_portable(name: str, *, secure: bool) -> str:
    """Return why `auto` selects the portable engine here; empty if it does not. `secure` is for a target over TLS."""
    missing = lanes_supported() or (libssl.unsupported() if secure else "")
    return missing if name == "auto" else ""


def choose_engine(name: str, *, secure: bool = False) -> tuple[Literal["native", "portable"], Engine]:
    """Return the engine of this name; `auto` is native if lanes can run here. UsageError if `native` cannot run."""
    missing = lanes_supported() or (libssl.unsupported() if secure else "")
    if name == "native" and missing:
        raise UsageError(f"--engine native: {missing}", hint="use --engine auto")
    if name == "portable" or missing:
        from .portable.lane import run_lane

        return "portable", run_lane
    from replay.lane import native

    return "native", native.run_lane


class HttpPlan(TargetPlan):
    """One HTTP target of a run: how its requests are rendered and how responses are judged."""

    def __init__(self, schedule: Schedule, found: Found) -> None:
        super().__init__(schedule, found)
        trace, scenario = schedule.trace, schedule.scenario
        self.sessions = make_session_spec(trace.requests, scenario, trace.manifest.clients)
        self.render = make_render_spec(trace, scenario, found.target, self.sessions)
        check_bodies(trace.requests, scenario, schedule.bodiless)
        self.is_secure = is_secure(found.target)

    @property
    def portable_because(self) -> str:  # type: ignore[override]
        """See `TargetPlan`."""
        return why_portable(self.schedule.scenario.engine, secure=self.is_secure)

    def check(self) -> None:
        """See `TargetPlan`."""
        check_target(self.schedule, self.found)
        sizing.check_sockets(self.schedule.plan, self.schedule.scenario, len(self.found.hosts))

    async def open(self, run_id: str, first_route: int) -> ProtocolAdapter:
        """See `TargetPlan`."""
        return await open_http(self, run_id)


async def open_http(plan: HttpPlan, run_id: str) -> ProtocolAdapter:
    """Prepare a run against HTTP. ReplayError if the target, a TLS file or the auth command cannot be used."""
    schedule, scenario = plan.schedule, plan.schedule.scenario
    assert isinstance(plan.found, FoundName)
    followed = await follow_name(schedule, plan.found)
    tls = tls_for(scenario, plan.target) if plan.is_secure else None
    name, engine = choose_engine(scenario.engine, secure=plan.is_secure)
    peer = await shake_hands(followed.addresses, tls, plan.target.authority)
    render = plan.render.of_run(run_id)
    render = render.numbered(run_id) if scenario.x_replay else render
    trace_seed = seed_of(run_id) if scenario.traceparent else 0
    render = render.traced(trace_seed)
    authoriser = Authoriser(scenario.auth) if scenario.auth.command else None
    if authoriser is not None:
        render = render.authorised(await authoriser.first())
    count = 1 if name == "portable" else sizing.lanes_for(schedule, scenario)
    entries, ring_bytes = sizing.feed_size(schedule, scenario, render.typical_bytes, count)
    if render.recorded is not None:
        ring_bytes = max(ring_bytes, 2 * (render.recorded.largest_bytes + render.typical_bytes))
    renderer = RequestRenderer(schedule, render, by_client=scenario.by_client)

    async def keep_fresh() -> None:
        if authoriser is not None:
            await authoriser.keep_fresh(renderer.authorise)

    return ProtocolAdapter(
        engine_name=name,
        engine=engine,
        routes=route_starts(schedule),
        renderer=renderer,
        background=keep_fresh,
        notes=authoriser.notes if authoriser is not None else list,
        afterwards=partial(failed_handshakes, followed, tls, plan.target.authority),
        connections=sizing.connections_for(schedule.plan, scenario, count),
        sessions=plan.sessions,
        rules=plan.sessions.labels,
        keeps_responses=True,
        retry=retry_of(scenario),
        trace_seed=trace_seed,
        feed=(entries, ring_bytes),
        addresses=followed.addresses,
        name=followed,
        tls=tls,
        peer=peer,
        portable_because=plan.portable_because,
    )


async def failed_handshakes(
    name: NameWatch, tls: Tls | None, authority: str, specs: Sequence[LaneSpec]
) -> list[Note]:
    """Make one more handshake after a run in which some failed, and return a note with its result.

    Lanes only count failed handshakes, so that the reason must be found afterwards.
    """
    failed = sum(int(spec.metrics.counters[C.handshakes_failed]) for spec in specs)
    if not failed or tls is None:
        return []
    result = "one more after the run got no connection or no answer"
    with trio.move_on_after(ONE_MORE_S):
        try:
            peer = await shake_hands(name.addresses, tls, authority)
            result = "one more after the run succeeded" if peer else result
        except ReplayError as error:
            result = f"one more after the run failed: {error}"
    return [Note("HANDSHAKES_FAILED", f"{counted(failed, 'handshake')} failed; {result}")]
