"""The HTTP part of the printed plan: headers, TLS, connections."""

from __future__ import annotations

from replay import units
from replay.lane.sizing import CLOSED_LOOP_CONNECTIONS
from replay.plan.schedule import Plan
from replay.protocols.protocol import Fact, trace_facts, waits
from replay.settings.kinds import AUTO
from replay.settings.scenario import Scenario


def facts(plan: Plan, scenario: Scenario, *, is_secure: bool) -> list[Fact]:
    """Return the plan's lines about TLS, hosts, headers, client addresses and trace context."""
    rows = []
    if is_secure:
        rows.append(("TLS", _tls(scenario)))
    if scenario.host:
        rows.append(("Host", scenario.host))
    if scenario.headers:
        rows.append(("headers", ", ".join(sorted(scenario.headers))))
    if scenario.send_headers:
        none = "" if plan.recorded_headers else ": none, because this recording has no headers"
        rows.append(("sent again", f"{', '.join(scenario.send_headers)} as recorded{none}"))
    if scenario.rewrite_host:
        none = "" if plan.recorded_hosts else ": none, because this recording has no hosts"
        rows.append(("hosts", ", ".join(f"{old} as {new}" for old, new in scenario.rewrite_host) + none))
    if scenario.client_ip_header:
        rows.append(
            (
                "clients",
                f"one address per client, from {scenario.client_ip_range}, in {scenario.client_ip_header}",
            )
        )
    return [*rows, *trace_facts(scenario)]


def _tls(scenario: Scenario) -> str:
    tls = scenario.tls
    name = f" as {tls.server_name}" if tls.server_name else ""
    parts = [f"verified{name}, by {tls.ca or 'the certificates that this machine trusts'}"]
    if tls.insecure:
        parts = [f"NOT VERIFIED (--insecure){name}"]
    if tls.cert:
        parts.append(f"client certificate {tls.cert}")
    if not tls.resume:
        parts.append("no session is resumed")
    return "; ".join(parts)


def bounds(plan: Plan, scenario: Scenario) -> list[Fact]:
    """Return the plan's lines about the number of connections and how long requests wait for one."""
    basis = "as long as recorded" if plan.connections_recorded else "100 ms (the recording has no durations)"
    if plan.length_ns is None or plan.peak_1s_per_s is None:
        needed = "each has one request in flight"
    else:
        needed = f"about {units.format_count(plan.connections_estimate)} at once, if responses take {basis}"
    most = CLOSED_LOOP_CONNECTIONS if scenario.closed_loop else scenario.limits.auto_connections
    cap = (
        f"auto, up to {units.format_count(most)}"
        if scenario.connections == AUTO
        else f"at most {units.format_count(scenario.connections)}"
    )
    if plan.clients is not None:
        counted = plan.clients
        needed = (
            f"one per client, {units.format_count(counted.at_once)} at once with"
            f" {units.format_duration(scenario.idle_timeout_ns)} of keep-alive; {units.format_count(counted.connects)}"
            f" connects, up to {units.format_count(counted.connects_peak_1s)} per second"
        )
        if scenario.connections == AUTO:
            cap = "as many as needed"
    elif scenario.connect == "per-request":
        rate = (
            ""
            if plan.peak_1s_per_s is None
            else f", up to {units.format_count(plan.peak_1s_per_s)} per second"
        )
        needed = f"one per request{rate}; {needed}"
    return [("connections", f"{cap}; {needed}"), ("waits", waits(scenario))]
