"""The graph of a twin's services, and the checks of a twin: its calls, cycles, names, ports and contradictions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from replay.errors import UsageError
from replay.units import nearest

from .spec import BALANCER, BUS, RESERVED, Call, Route, Service, Twin

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ENTRY = re.compile(r"[A-Za-z0-9_-]{1,64}")
_REQUEST = re.compile(r"[A-Z]+ /[\x21-\x7e]*")
_MATCH = re.compile(r"([A-Z]+ )?/[\x21-\x7e]*")
REQUEST_FORM = "write a method and a path, as in 'GET /plans'"
MATCH_FORM = "write a path, or a method and a path, as in 'GET /plans'"

NameOf = Callable[[str], str]


class Edge(NamedTuple):
    """A call from one service to another. `key` is the path of the call's setting in the file."""

    source: str
    target: str
    closes_cycle: bool
    key: str


def services_of(twin: Twin) -> dict[str, Service]:
    """Return all services, including the load balancer, whose settings are converted to those of a service."""
    services = dict(twin.services)
    if twin.balancer is not None:
        services[BALANCER] = _balancer(twin)
    return services


def _balancer(twin: Twin) -> Service:
    given = twin.balancer
    assert given is not None
    targets = dict.fromkeys(given.routes.values())
    return Service(
        port=given.port,
        workers=given.in_flight,
        queue=given.queue,
        routes={match: Route(match=match, calls=(target,)) for match, target in given.routes.items()},
        calls={target: Call(to=target, timeout_ns=given.timeout_ns) for target in targets},
    )


def entry_of(twin: Twin) -> str:
    """Return the name of the service that receives the requests of users."""
    if twin.entry:
        return twin.entry
    return BALANCER if twin.balancer is not None else next(iter(twin.services), "")


def target_of(name: str, call: Call) -> str:
    """Return the service that a call goes to; for a message, the bus."""
    return BUS if call.topic else call.to or name


def edges_of(twin: Twin) -> Iterator[Edge]:
    """Yield the calls from service to service, except messages over the bus, for which no service waits."""
    for name, service in services_of(twin).items():
        prefix = BALANCER if name == BALANCER else f"services.{name}"
        for key, call in service.calls.items():
            if not call.topic:
                yield Edge(name, target_of(key, call), call.closes_cycle, f"{prefix}.calls.{key}")


def cycles_of(edges: list[Edge]) -> Iterator[list[Edge]]:
    """Yield the cycles of calls that a depth-first search finds: at least one, if there is any."""
    by_source: dict[str, list[Edge]] = {}
    for edge in edges:
        by_source.setdefault(edge.source, []).append(edge)
    done: set[str] = set()
    for start, own in by_source.items():
        way: list[Edge] = []
        stack = [iter(own)] if start not in done else []
        on_way = {start}
        while stack:
            following = next(stack[-1], None)
            if following is None:
                stack.pop()
                if way:
                    left = way.pop()
                    on_way.discard(left.target)
                    done.add(left.target)
                continue
            edge = following
            if edge.target in on_way:
                yield [*way[_index_of(edge.target, way, start) :], edge]
            elif edge.target not in done:
                way.append(edge)
                on_way.add(edge.target)
                stack.append(iter(by_source.get(edge.target, [])))
        done.add(start)


def _index_of(target: str, way: list[Edge], start: str) -> int:
    return 0 if target == start else next(i for i, edge in enumerate(way) if edge.target == target) + 1


def route_of(service: Service, method: str, path: str) -> str:
    """Return the name of the route that answers a request, by the longest match; empty if there is none."""
    best, longest = "", -1
    for name, route in service.routes.items():
        wanted, _, prefix = route.match.rpartition(" ")
        length = 2 * len(prefix) + bool(wanted)
        if length > longest and path.startswith(prefix) and wanted in ("", method):
            best, longest = name, length
    return best


def check_twin(twin: Twin, name_of: NameOf) -> None:
    """Raise UsageError for unknown names, unintended cycles, and settings that contradict each other."""
    if not twin.services:
        raise UsageError(f"{name_of('services')}: a twin needs a service", hint="[services.NAME] begins one")
    for name, service in twin.services.items():
        _check_service(twin, name, service, name_of)
    _check_balancer(twin, name_of)
    if twin.entry and twin.entry not in services_of(twin):
        raise _unknown(twin, twin.entry, name_of("entry"))
    for topic_name, topic in (twin.bus.topics if twin.bus else {}).items():
        key = f"bus.topics.{topic_name}"
        if topic.to not in twin.services:
            raise _unknown(twin, topic.to, name_of(f"{key}.to"))
        _check_request(topic.request, name_of(f"{key}.request"))
    ports = [(f"services.{name}.port", service.port) for name, service in twin.services.items()]
    ports += [
        (f"{key}.port", table.port)
        for key, table in (("balancer", twin.balancer), ("bus", twin.bus))
        if table
    ]
    taken: dict[int, str] = {}
    for key, port in ports:
        if port and taken.setdefault(port, key) != key:
            raise UsageError(
                f"{name_of(key)}: {taken[port]} has this port too", hint="give each its own, or 0"
            )
    for request in twin.load:
        _check_request(request, name_of(f"load.{request}"))
    _check_cycles(twin, name_of)


def check_start(twin: Twin, name_of: NameOf) -> None:
    """Raise UsageError for settings with which a twin cannot start."""
    for name, service in twin.services.items():
        scaler = service.autoscaler
        if scaler is not None and not scaler.min <= service.replicas <= scaler.max:
            raise UsageError(
                f"{name_of(f'services.{name}.replicas')}: {service.replicas} is not within the autoscaler's bounds",
                hint=f"give {scaler.min} to {scaler.max}, or change min or max of the autoscaler",
            )


def _check_cycles(twin: Twin, name_of: NameOf) -> None:
    # Calls that close a cycle are left out. `cycles_of` does not find every cycle, and one that has such a call may
    # hide one that has none.
    for cycle in cycles_of([edge for edge in edges_of(twin) if not edge.closes_cycle]):
        words = " -> ".join([*(edge.source for edge in cycle), cycle[-1].target])
        raise UsageError(
            f"{name_of(cycle[-1].key)}: {words} is a cycle of calls",
            hint="if it is intended, set closes_cycle = true in the call that closes it",
        )


def _check_balancer(twin: Twin, name_of: NameOf) -> None:
    if twin.balancer is None:
        return
    if BALANCER in twin.services:
        raise UsageError(
            f"{name_of(f'services.{BALANCER}')}: the name belongs to [balancer]",
            hint="give the service another name",
        )
    if not twin.balancer.routes:
        raise UsageError(
            f"{name_of('balancer')}: it needs routes",
            hint="add [balancer.routes] with '/auth' = 'auth', for example",
        )
    for match, target in twin.balancer.routes.items():
        key = f"balancer.routes.{match}"
        if not _MATCH.fullmatch(match):
            raise UsageError(f"{name_of(key)}: {match!r} matches no request", hint=MATCH_FORM)
        if target not in twin.services:
            raise _unknown(twin, target, name_of(key))


def _check_service(twin: Twin, name: str, service: Service, name_of: NameOf) -> None:
    key = f"services.{name}"
    if not _NAME.fullmatch(name) or name in RESERVED:
        reason = "is reserved" if name in RESERVED else "cannot be a host name"
        raise UsageError(
            f"{name_of(key)}: the name {name!r} {reason}",
            hint="choose another one, of lowercase letters, digits and hyphens",
        )
    if not service.routes:
        raise UsageError(f"{name_of(key)}: it has no routes", hint=f"[{key}.routes.NAME] begins one")
    for table, entry in [*(("routes", n) for n in service.routes), *(("calls", n) for n in service.calls)]:
        if not _ENTRY.fullmatch(entry):
            raise UsageError(
                f"{name_of(f'{key}.{table}.{entry}')}: {entry!r} is not a name",
                hint="use letters, digits, hyphens and underscores",
            )
    for route_name, route in service.routes.items():
        _check_route(service, route, f"{key}.routes.{route_name}", name_of)
    for call_name, call in service.calls.items():
        _check_call(twin, call_name, call, f"{key}.calls.{call_name}", name_of)
    if service.jobs is not None:
        _check_calls(service, service.jobs.calls, name_of(f"{key}.jobs.calls"))
    scaler = service.autoscaler
    if scaler is not None and scaler.min > scaler.max:
        raise UsageError(
            f"{name_of(f'{key}.autoscaler.min')}: {scaler.min} is more than max, {scaler.max}",
            hint="lower min, or raise max",
        )
    if scaler is not None and not scaler.period_ns:
        raise UsageError(
            f"{name_of(f'{key}.autoscaler.period')}: it must be above 0", hint="give 15s, for example"
        )


def _check_route(service: Service, route: Route, key: str, name_of: NameOf) -> None:
    if not _MATCH.fullmatch(route.match):
        raise UsageError(f"{name_of(f'{key}.match')}: {route.match!r} matches no request", hint=MATCH_FORM)
    _check_calls(service, route.calls, name_of(f"{key}.calls"))
    needs = (
        ("reads", route.reads, service.database, "database"),
        ("writes", route.writes, service.database, "database"),
        ("cached", route.cached, service.cache, "cache"),
        ("jobs", route.jobs, service.jobs, "jobs"),
    )
    for setting, value, table, wanted in needs:
        if value and table is None:
            service_key = key.rpartition(".routes.")[0]
            raise UsageError(
                f"{name_of(f'{key}.{setting}')}: the service has no {wanted}",
                hint=f"add [{service_key}.{wanted}]",
            )


def _check_calls(service: Service, calls: tuple[str, ...], where: str) -> None:
    for call in calls:
        if call not in service.calls:
            guess = nearest(call, service.calls)
            meant = f" (did you mean {guess}?)" if guess else ""
            known = ", ".join(service.calls) or "none"
            raise UsageError(
                f"{where}: there is no call {call!r}{meant}", hint=f"calls of the service: {known}"
            )


def _check_call(twin: Twin, name: str, call: Call, key: str, name_of: NameOf) -> None:
    if call.topic:
        topics = twin.bus.topics if twin.bus else {}
        if call.topic not in topics:
            known = ", ".join(topics) or "none"
            raise UsageError(
                f"{name_of(f'{key}.topic')}: there is no topic {call.topic!r}",
                hint=f"[bus.topics.{call.topic}] declares one; there are: {known}",
            )
    elif target_of(name, call) not in twin.services:
        raise _unknown(twin, target_of(name, call), name_of(f"{key}.to" if call.to else key))
    if call.request:
        _check_request(call.request, name_of(f"{key}.request"))
    if not call.timeout_ns:
        raise UsageError(f"{name_of(f'{key}.timeout')}: it must be above 0", hint="give 1s, for example")


def _check_request(request: str, where: str) -> None:
    if not _REQUEST.fullmatch(request):
        raise UsageError(f"{where}: {request!r} is not a request", hint=REQUEST_FORM)


def _unknown(twin: Twin, name: str, where: str) -> UsageError:
    guess = nearest(name, twin.services)
    meant = f" (did you mean {guess}?)" if guess else ""
    return UsageError(
        f"{where}: there is no service {name!r}{meant}", hint=f"services: {', '.join(twin.services)}"
    )
