"""What a run onto HTTP needs: its engine, the target's addresses and who answers there, its requests, sockets, retries."""

from __future__ import annotations

from typing import Literal

import numpy as np

from replay.errors import UsageError
from replay.lane import native, sizing
from replay.lane.contract import Engine, Retry
from replay.lane.name_watch import NameWatch
from replay.lane.resolve import Lookups, check_reachable, look_up
from replay.lane.tls import tls_for
from replay.plan.safety import check_addresses, check_plan
from replay.plan.schedule import Schedule
from replay.protocols.adapter import Fittings
from replay.protocols.feeder import RequestRenderer
from replay.results.document import RouteStart
from replay.settings.kinds import statuses_of
from replay.settings.scenario import Scenario
from replay_native.feed.addresses import ADDRESSES_MAX
from replay_native.ground import jit
from replay_native.ground.libc import lanes_supported
from replay_native.lane import libssl
from replay_native.lane.retry import FAILURE, PPM, RETRY_ON
from replay_native.ledger.lane_metrics import OUTCOMES

from .auth import Authoriser
from .probe import shake_hands


def why_portable(name: str, *, secure: bool) -> str:
    """Why `auto` is the portable engine here, for a target by TLS (`secure`) or not; empty where it is not."""
    missing = lanes_supported() or (libssl.unsupported() if secure else "")
    return missing if name == "auto" else ""


def choose_engine(name: str, *, secure: bool = False) -> tuple[Literal["native", "portable"], Engine]:
    """The engine of this name; `auto` is native where lanes can run. UsageError where they can't but must."""
    missing = lanes_supported() or (libssl.unsupported() if secure else "")
    if name == "native" and missing:
        raise UsageError(f"--engine native: {missing}", hint="use --engine auto")
    if name == "portable" or missing:
        from replay.portable.engine import run_lane

        return "portable", run_lane
    return "native", native.run_lane


async def fit_http(schedule: Schedule, scenario: Scenario, run_id: str, first_route: int = 0) -> Fittings:
    """What HTTP needs. TargetError, LimitError or UsageError where the target cannot or may not be sent to."""
    followed = await follow_name(schedule, scenario)
    tls = tls_for(scenario, schedule.target)
    name, engine = choose_engine(scenario.engine, secure=tls is not None)
    peer = await shake_hands(followed.addresses, tls, schedule.target.authority)
    jit.warm(native.KERNEL_MODULES)
    render = schedule.render.numbered(run_id) if scenario.x_replay else schedule.render
    authoriser = Authoriser(scenario.auth) if scenario.auth.command else None
    if authoriser is not None:
        render = render.authorised(await authoriser.first())
    count = 1 if name == "portable" else sizing.lanes_for(schedule, scenario)
    sizing.check_sockets(schedule.plan, scenario, len(followed.addresses))
    connections = sizing.connections_for(schedule.plan, scenario, count)
    entries, ring_bytes = sizing.feed_size(schedule, scenario, render.typical_bytes, count)
    if render.recorded is not None:
        ring_bytes = max(ring_bytes, 2 * (render.recorded.largest_bytes + render.typical_bytes))
    renderer = RequestRenderer(schedule, render, by_client=scenario.by_client)

    async def keep_fresh() -> None:
        if authoriser is not None:
            await authoriser.keep_fresh(renderer.authorise)

    return Fittings(
        engine_name=name,
        engine=engine,
        routes=route_starts(schedule),
        renderer=renderer,
        background=keep_fresh,
        notes=authoriser.notes if authoriser is not None else list,
        connections=connections,
        sessions=schedule.sessions,
        feed=(entries, ring_bytes),
        addresses=followed.addresses,
        name=followed,
        tls=tls,
        peer=peer,
        portable_because=why_portable(scenario.engine, secure=tls is not None),
    )


async def follow_name(schedule: Schedule, scenario: Scenario) -> NameWatch:
    """The target's addresses, checked and reached; and whoever follows its name."""
    target, origins = schedule.target, schedule.trace.requests.hosts
    lookups = Lookups(target.host, scenario.resolver)
    found, answer = await look_up(target, scenario, lookups)
    check_plan(schedule.plan, target, answer.addresses, origins, scenario)
    reached = await check_reachable(found, target.host)

    def allow(host: str) -> None:
        check_addresses(target.host, [host], scenario)
        check_plan(schedule.plan, target, [host], origins, scenario)

    used = reached.addresses[:ADDRESSES_MAX]
    return NameWatch(
        lookups, scenario.resolve, target.port, answer, used, reached.left_out, allow,
        no_room=len(reached.addresses) - len(used),
    )  # fmt: skip


def route_starts(schedule: Schedule) -> list[RouteStart]:
    """The routes of the trace, with what was recorded of them."""
    recorded = {route.route: route.recorded for route in schedule.plan.by_route}
    requests = schedule.trace.requests
    named = zip(requests.routes, requests.actions, strict=True)
    return [RouteStart(name, recorded.get(name), action) for name, action in named]


def retry_of(scenario: Scenario) -> Retry | None:
    """What a lane tries again; None where nothing is."""
    given = scenario.retry
    if given.attempts == 1:
        return None
    on = np.zeros(RETRY_ON, np.uint8)
    for name in given.on:
        on[statuses_of(name)] = 1
        if name in OUTCOMES:
            on[FAILURE + OUTCOMES.index(name)] = 1
    return Retry(
        on=on,
        attempts=given.attempts,
        backoff_ns=int(given.backoff_ns),
        backoff_max_ns=int(given.backoff_max_ns),
        jitter_ppm=round(given.jitter * PPM),
        budget_ppm=-1 if given.budget is None else round(given.budget * PPM),
        burst_ppm=given.budget_burst * PPM,
        all_methods=given.methods == "all",
        seed=scenario.seed,
    )
