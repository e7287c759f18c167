"""Finds the protocol of a target URL by its scheme, among the built-in ones and those of other packages.

A package adds one by an entry point of the group `replay.protocols`, whose name is the scheme:

    [project.entry-points."replay.protocols"]
    echo = "my_package.echo:PROTOCOL"
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from replay import units
from replay.errors import UsageError
from replay.settings.scenario import Scenario
from replay.settings.target import Target, scheme_of

from .protocol import Protocol

GROUP = "replay.protocols"

_BUILT_IN = {"http": "http1", "https": "http1", "kafka": "kafka"}
"""The package in `replay.protocols` for each scheme; its protocol is the package's `PROTOCOL`."""


def protocol_of(url: str) -> Protocol:
    """Return the protocol of a target URL. UsageError if its scheme is unknown, or the protocol cannot be loaded."""
    scheme = scheme_of(url)
    if scheme in _BUILT_IN:
        return _built_in(scheme)
    brought = _brought().get(scheme, [])
    if not brought:
        known = sorted({*_BUILT_IN, *_brought()})
        guess = units.nearest(scheme, known)
        raise UsageError(
            f"the target {url!r}: {scheme} targets are not supported; {', '.join(known[:-1])} and {known[-1]} are"
            + (f" (did you mean {guess}?)" if guess else ""),
            hint="write http://HOST:PORT/BASE/PATH",
        )
    if len(brought) > 1:
        packages = " and ".join(sorted(_package(one) for one in brought))
        raise UsageError(f"{packages} both provide the protocol {scheme}", hint="uninstall one of them")
    return _loaded(brought[0])


def parse_target(url: str) -> Target:
    """Parse a target URL with its protocol. UsageError if it is invalid."""
    return protocol_of(url).parse(url)


def unused_settings(scenario: Scenario) -> list[str]:
    """Return the settings that were set and that no target of the scenario uses.

    An item reads `tls.insecure (for https targets)`. Unused settings are not an error, because one scenario may
    be used with several targets; the plan reports them.
    """
    targets = [parse_target(own.target) for own in scenario.by_target()]
    unused: dict[str, list[str]] = {}
    for protocol in dict.fromkeys((*_all_built_in(), *(protocol_of(target.url) for target in targets))):
        own = [target for target in targets if protocol_of(target.url) is protocol]
        for key, user in protocol.unused(scenario, own):
            unused.setdefault(user, []).append(key)
    for key, user in _unused_traces(scenario, targets):
        unused.setdefault(user, []).append(key)
    return [f"{', '.join(keys)} (for {user})" for user, keys in unused.items()]


def _unused_traces(scenario: Scenario, targets: Sequence[Target]) -> Iterator[tuple[str, str]]:
    if scenario.traceparent and not any(protocol_of(target.url).sends_traceparent for target in targets):
        yield "traceparent", "HTTP and Kafka targets"
    if scenario.trace_url and not scenario.traceparent:
        yield "trace_url", "--traceparent"


def _all_built_in() -> Iterator[Protocol]:
    return map(_built_in, _BUILT_IN)


@functools.cache
def _built_in(scheme: str) -> Protocol:
    return _of_package(_BUILT_IN[scheme])


@functools.cache
def _of_package(name: str) -> Protocol:
    protocol: Protocol = import_module(f".{name}", __package__).PROTOCOL
    return protocol


@functools.cache
def _brought() -> dict[str, list[EntryPoint]]:
    """Return entry points by scheme. One that is found twice with the same name and value is used once.

    UsageError if one of them is for a built-in scheme.
    """
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point.value not in [known.value for known in found.setdefault(point.name.lower(), [])]:
            found[point.name.lower()].append(point)
    for scheme in _BUILT_IN:
        if scheme in found:
            raise UsageError(
                f"{_package(found[scheme][0])} provides a protocol for {scheme}, which replay has built in",
                hint="uninstall it, or give its protocol another scheme",
            )
    return found


def _package(point: EntryPoint) -> str:
    return f"the package {point.dist.name}" if point.dist is not None else point.value


@functools.cache
def _loaded(point: EntryPoint) -> Protocol:
    try:
        protocol = point.load()
    except Exception as error:
        raise UsageError(
            f"the protocol {point.name} of {_package(point)} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(protocol, Protocol):
        raise UsageError(
            f"the protocol {point.name} of {_package(point)} is not a replay.protocols.Protocol but {protocol!r}",
            hint="its entry point must refer to an instance",
        )
    return protocol
