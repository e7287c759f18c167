"""The check that a twin's ordinary load fits this machine.

It compares the processor time that the load uses with the CPUs of the machine. Too few workers are not an error,
because a twin may be meant to show just that. Too little processor time would slow down everything, including the
load generator, and make all figures meaningless.
"""

from __future__ import annotations

import os

from replay.errors import UsageError
from replay.units import SECOND_NS

from .graph import NameOf, entry_of, route_of, services_of
from .spec import Service, Twin

REQUEST_CPU_S = 0.0003
"""The approximate processor time of a service per request besides its work: reading, parsing, answering."""

FREE_SHARE = 0.2
"""The share of the CPUs that the generator and the twin's own figures need."""


def check_sizes(twin: Twin, name_of: NameOf) -> None:
    """Raise UsageError if the load needs more processor time than this process may use, less FREE_SHARE."""
    cpus = len(os.sched_getaffinity(0))
    needed = cpus_needed(twin)
    if needed > cpus * (1 - FREE_SHARE):
        raise UsageError(
            f"{name_of('load')}: this load needs about {needed:.1f} CPUs, and this process may use {cpus}, of which the load"
            f" generator needs {FREE_SHARE:.0%}",
            hint="lower the rates, or the times of routes with work = 'cpu'",
        )


def cpus_needed(twin: Twin) -> float:
    """Return the seconds of processor time per second that the ordinary load and its calls need."""
    services = services_of(twin)
    total_s = 0.0
    for request, rate in twin.load.items():
        total_s += float(rate) * _cpu_s(services, entry_of(twin), request, frozenset())
    return total_s


def _cpu_s(services: dict[str, Service], name: str, request: str, on_the_way: frozenset[str]) -> float:
    """Return the processor time of one request, at a service and at the services that it calls.

    A cycle is followed once.
    """
    service = services.get(name)
    if service is None or name in on_the_way:
        return 0.0
    method, _, path = request.partition(" ")
    route = service.routes.get(route_of(service, method, path))
    if route is None:
        return REQUEST_CPU_S
    own_s = route.time.mean_ns / SECOND_NS if route.work == "cpu" else 0.0
    behind_s = 0.0
    for each in route.calls:
        call = service.calls.get(each)
        if call is not None and not call.topic:
            behind_s += _cpu_s(services, call.to or each, call.request or request, on_the_way | {name})
    return REQUEST_CPU_S + own_s + behind_s
