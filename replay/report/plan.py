"""Prints the plan of a run in the terminal: what will be sent, where, when and how fast."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping, Sequence

from rich.console import Console

from replay import units
from replay.ledger.statuses import FAILED_SHARE
from replay.plan.schedule import Plan
from replay.protocols.registry import protocol_of
from replay.results import slo
from replay.results.notes import rejected_words
from replay.settings.bare_times import bare_time_notes
from replay.settings.scenario import Scenario
from replay_native.feed.addresses import ADDRESSES_MAX

from .page import Page
from .plan_actions import actions_facts

ROUTES_SHOWN = 12
HOSTS_SHOWN = 3
REASONS_SHOWN = 5


def print_plan(
    plan: Plan,
    scenario: Scenario,
    addresses: Sequence[str],
    console: Console,
    *,
    portable_because: str = "",
    unused: Sequence[str] = (),
) -> None:
    """Print a plan.

    `addresses` are the target's resolved addresses; empty if they were not looked up. `portable_because` explains
    why native lanes cannot run. `unused` lists settings that apply to no target of the run.
    """
    page = Page(console)
    page.say("Plan", "bold")
    page.facts(
        (
            *target_facts(plan, scenario, addresses),
            *_recording(plan),
            *_requests(plan),
            *_unread(plan),
            *_pace(plan),
            *bounds_facts(plan, scenario),
            *objectives_facts(plan, scenario),
            *actions_facts(plan, scenario),
            *([("note", "; ".join(notes))] if (notes := bare_time_notes(scenario)) else []),
            *([("engine", f"portable: {portable_because}")] if portable_because else []),
            *([("not used", "; ".join(unused))] if unused else []),
        )
    )
    page.say()
    page.table((("share", "right"), ("requests", "right"), ("route", "name")), _routes(plan))
    page.say()


ADDRESSES_SHOWN = 8


def _places(addresses: Sequence[str]) -> str:
    """Return the first addresses, how many more there are, and how many are used if not all."""
    if len(addresses) <= ADDRESSES_SHOWN:
        return ", ".join(addresses)
    shown = f"{', '.join(addresses[:ADDRESSES_SHOWN])} and {len(addresses) - ADDRESSES_SHOWN:,} more"
    if len(addresses) > ADDRESSES_MAX:
        shown += f"; only the first {ADDRESSES_MAX:,} of {len(addresses):,} are used"
    return shown


def target_facts(plan: Plan, scenario: Scenario, addresses: Sequence[str]) -> list[tuple[str, str]]:
    """Return the target, and the protocol's facts about it."""
    where = f", {_places(addresses)}" if addresses and addresses[0] not in plan.target else ""
    rows = [("target", f"{plan.target}{where}")]
    return [*rows, *protocol_of(plan.target).facts(plan, scenario)]


def _recording(plan: Plan) -> list[tuple[str, str]]:
    zone = _zone(plan)
    first, last = (
        units.format_moment(at_ns, zone) for at_ns in (plan.recorded_from_ns, plan.recorded_until_ns)
    )
    length = units.format_duration(plan.recorded_until_ns - plan.recorded_from_ns)
    rows = [("recording", plan.trace), ("recorded", f"{first} to {last} ({length})")]
    if plan.out_of_time_order is not None:
        rows.append(("order", _order(plan.out_of_time_order)))
    if plan.recorded_hosts:
        rows.append(("of", _listed(plan.recorded_hosts, HOSTS_SHOWN)))
    return rows


def _order(disordered: Mapping[str, int]) -> str:
    """Return in which order a partition's records are replayed."""
    count = sum(disordered.values())
    if not count:
        return "by offset in each partition, which is also their order in time"
    where = _listed(disordered, HOSTS_SHOWN)
    stamped = "record is stamped" if count == 1 else "records are stamped"
    return f"by time, not by offset: {count:,} {stamped} earlier than a record at a lower offset ({where})"


def _zone(plan: Plan) -> dt.tzinfo:
    return dt.timezone(dt.timedelta(seconds=plan.utc_offset_s)) if plan.utc_offset_s else dt.UTC


def _requests(plan: Plan) -> list[tuple[str, str]]:
    methods = ", ".join(f"{units.format_count(rows)} {name}" for name, rows in plan.by_method.items())
    if plan.rows is None:
        total = "as many as the target can answer; one pass over the recording is " + methods
    else:
        readable = 1 - sum(plan.rejected.values()) / max(plan.lines, 1)
        share = units.format_share(min(plan.rows / plan.trace_rows, 1.0) * readable)
        total = f"{units.format_count(plan.rows)}, {share} of the recording: {methods}"
        if plan.passes > 1:
            total = f"{units.format_count(plan.rows)}, {units.format_number(plan.passes)} passes: {methods}"
    rows = [("requests", total)]
    if plan.skipped:
        rows.append(("skipped", _listed(plan.skipped, len(plan.skipped))))
        if any(reason.startswith("method ") for reason in plan.skipped):
            rows.append(("", "--methods selects the methods that are sent; --methods all sends every one"))
    return rows


def _unread(plan: Plan) -> list[tuple[str, str]]:
    """Return facts about lines of the recording that could not be read, and about files that were left out."""
    rows = []
    if plan.rejected:
        count = sum(plan.rejected.values())
        words = f"{rejected_words(count, plan.lines)}: {_listed(plan.rejected, REASONS_SHOWN)}"
        rows.append(("rejected", words))
        rows.append(("", "replay import lists the first of them"))
    if plan.files_left_out:
        shown = plan.files_left_out[:HOSTS_SHOWN]
        more = len(plan.files_left_out) - len(shown)
        rows.append(("left out", "; ".join(shown) + (f" and {more} more" if more else "")))
    return rows


def objectives_facts(plan: Plan, scenario: Scenario) -> list[tuple[str, str]]:
    """Return the objectives in canonical units, and the default rule for statuses unless an objective replaces it."""
    objectives = [slo.parse(str(text)) for text in scenario.slo]
    words = [slo.canonical(objective) + _cannot_fail(objective, scenario) for objective in objectives]
    if protocol_of(plan.target).has_statuses and not any(map(slo.replaces_status_rule, objectives)):
        words.append(
            f"statuses differ ≤ {units.format_share(FAILED_SHARE)} (applies unless an objective replaces it)"
        )
    return [("objectives" if number == 0 else "", text) for number, text in enumerate(words)]


def _cannot_fail(objective: slo.Slo, scenario: Scenario) -> str:
    """Return a warning if an objective can never or hardly fail; otherwise an empty string."""
    if objective.percentile is None:
        accepts_all = objective.limit >= 1 and (objective.or_equal or slo.replaces_status_rule(objective))
        return " (any share is accepted: it cannot fail)" if accepts_all else ""
    longest_ns = {"service": scenario.timeout_ns, "first_byte": scenario.timeout_ns}.get(objective.metric, 0)
    if objective.metric == "response":
        longest_ns = scenario.timeout_ns + scenario.max_wait_ns
    if not 0 < longest_ns < objective.limit or scenario.retry.attempts > 1:
        return ""
    return f" (can hardly fail: no request waits longer than {units.format_duration(longest_ns)})"


def _listed(counts: Mapping[str, int], shown: int) -> str:
    parts = [f"{units.format_count(count)} {name}" for name, count in list(counts.items())[:shown]]
    return ", ".join(parts) + (f" and {len(counts) - shown} more" if len(counts) > shown else "")


def _pace(plan: Plan) -> list[tuple[str, str]]:
    rows = [("pace", plan.pace)]
    if plan.peak_1s_per_s is not None and plan.mean_per_s is not None and plan.peak_60s_per_s is not None:
        rates = f"{units.format_rate(plan.mean_per_s)} on average"
        if plan.speed and plan.peak_1s_per_s > plan.mean_per_s:
            rates += f", {units.format_count(plan.peak_1s_per_s)} in the busiest second"
            rates += f", {units.format_rate(plan.peak_60s_per_s)} over the busiest minute"
        rows.append(("rate", rates))
        if plan.peak_at_ns:
            recorded_ns = plan.recorded_from_ns + round(plan.peak_at_ns * plan.speed)
            at = units.format_duration(plan.peak_at_ns)
            rows.append(
                ("busiest", f"{at} after the start; recorded {units.format_moment(recorded_ns, _zone(plan))}")
            )
    if plan.length_ns is None:
        rows.append(("length", "until the recording has been sent once"))
    else:
        local = dt.datetime.now().astimezone().tzinfo or dt.UTC
        end = units.format_moment(time.time_ns() + plan.length_ns, local)
        rows.append(("length", f"{units.format_duration(plan.length_ns)}; started now, it ends {end}"))
    if plan.warm_up_ns:
        rows.append(("warm-up", f"{units.format_duration(plan.warm_up_ns)}, sent and not measured"))
    return rows


def bounds_facts(plan: Plan, scenario: Scenario) -> list[tuple[str, str]]:
    """Return facts about connections, time limits and retries, and when the run aborts."""
    rows = protocol_of(plan.target).bounds(plan, scenario)
    breaker = scenario.breaker
    stop = (
        f"when more than {units.format_share(breaker.share)} fail within {units.format_duration(breaker.over_ns)}"
        if breaker.on
        else "never (the circuit breaker is off)"
    )
    retry = scenario.retry
    if retry.attempts > 1:
        backoff = f"{units.format_duration(retry.backoff_ns)} later, then doubling"
        backoff += f" up to {units.format_duration(retry.backoff_max_ns)}"
        rows.append(("retries", f"up to {retry.attempts} tries; the second {backoff}"))
    return [*rows, ("aborts", stop)]


def _routes(plan: Plan) -> list[tuple[str, str, str]]:
    """Return share, requests and name of the ROUTES_SHOWN busiest routes, and one row for all others."""
    routes = sorted((route for route in plan.by_route if route.rows), key=lambda route: -route.rows)
    total = sum(route.rows for route in routes)
    rest = sum(route.rows for route in routes[ROUTES_SHOWN:])
    rows = [(route.rows, route.route) for route in routes[:ROUTES_SHOWN]]
    if rest:
        rows.append((rest, f"{len(routes) - ROUTES_SHOWN} more routes"))
    return [(units.format_share(count / total), units.format_count(count), name) for count, name in rows]
