"""Limits on targets and load: only loopback unless a host is allowed, and no plan beyond the limits."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from replay import units
from replay.errors import LimitError, NotAllowedError, UsageError
from replay.settings.scenario import DEFAULT_MAX_DURATION_NS, DEFAULT_MAX_RATE_PER_S, Scenario
from replay.settings.target import Target

from .schedule import Plan

ALLOW_VARIABLE = "REPLAY_ALLOW"
"""Environment variable with more allowed hosts, separated by commas."""

MAPPED_BITS = 96
"""The length of the prefix ::ffff:0:0, under which IPv6 holds IPv4 addresses."""

_NAME = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Allowed:
    """Hosts that may be targets: names in lower case, suffixes with their leading dot, and networks.

    An allowed name is allowed with all of its addresses.
    """

    names: frozenset[str]
    suffixes: tuple[str, ...]
    networks: tuple[_Network, ...]

    def host(self, name: str) -> bool:
        """Return whether a host is allowed by name."""
        name = _plain(name)
        return name in self.names or name.endswith(self.suffixes)

    def address(self, address: _Address) -> bool:
        """Return whether an address is allowed, whatever the name of its host is."""
        return any(address in network for network in self.networks)

    def check(self, host: str, addresses: Sequence[str], *, advertised: bool = False) -> None:
        """Raise NotAllowedError if an address of a host is neither loopback nor allowed.

        `advertised` means that the cluster advertised the host, and the user did not give it.
        """
        if self.host(host):
            return
        for address in addresses:
            if not is_loopback(address) and not self.address(parse_address(address)):
                place = host if _plain(host) == address else f"{host} ({address})"
                what = "the broker that the cluster advertises at" if advertised else "the target"
                meant = "belongs to the cluster" if advertised else "is meant to be loaded"
                raise NotAllowedError(
                    f"{what} {place} is beyond this machine, and its host is not allowed",
                    hint=f"if it {meant}: --allow {host if _is_pattern(host) else address}",
                )


def _plain(host: str) -> str:
    return host.lower().rstrip(".").strip("[]")


def _network(text: str) -> _Network:
    """Parse an address or a network, ignoring its zone.

    Raises ValueError if it is neither. IPv4 inside IPv6 becomes IPv4.
    """
    network = ipaddress.ip_network(re.sub(r"%[^/]*", "", text), strict=False)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.ip_network((mapped, network.prefixlen - MAPPED_BITS))
    return network


def _is_name(text: str) -> bool:
    """Return whether a text is a name, or `*.name`, that can be allowed.

    A name whose last label is all digits is a mistyped address, and `*.com` would allow too much.
    """
    if text.startswith("*") and text.count(".") < 2:
        return False
    return bool(_NAME.fullmatch(text)) and not text.rpartition(".")[2].isdigit()


def _is_pattern(host: str) -> bool:
    """Return whether `--allow` accepts this host as written."""
    try:
        _network(_plain(host))
    except ValueError:
        return _is_name(_plain(host))
    return True


def allowed_hosts(texts: Iterable[str]) -> Allowed:
    """Parse names, `*.name` suffixes, addresses and networks that may be targets.

    Raises UsageError for anything else.
    """
    names, suffixes, networks = set(), [], []
    for text in (_plain(text.strip()) for text in texts if text.strip()):
        try:
            networks.append(_network(text))
            continue
        except ValueError:
            pass
        if not _is_name(text):
            raise UsageError(
                f"{text!r} is not a host that can be allowed",
                hint="write a name, *.staging.example, an address, or a network such as 10.1.0.0/16",
            )
        if text.startswith("*"):
            suffixes.append(text[1:])
        else:
            names.add(text)
    return Allowed(frozenset(names), tuple(suffixes), tuple(networks))


def allowed(scenario: Scenario, environ: Mapping[str, str] | None = None) -> Allowed:
    """Return the hosts that the scenario, the flags and REPLAY_ALLOW allow.

    Raises UsageError for an entry that cannot be allowed.
    """
    environ = os.environ if environ is None else environ
    return allowed_hosts([*scenario.allow, *environ.get(ALLOW_VARIABLE, "").split(",")])


def parse_address(address: str) -> _Address:
    """Parse an address, ignoring its zone.

    IPv4 inside IPv6 becomes IPv4.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return getattr(parsed, "ipv4_mapped", None) or parsed


def is_loopback(address: str) -> bool:
    """Return whether an address is a loopback address, also if it has a zone or is IPv4 inside IPv6."""
    return parse_address(address).is_loopback


def check_addresses(host: str, addresses: Sequence[str], scenario: Scenario) -> None:
    """Raise NotAllowedError if a resolved address of a target is neither loopback nor allowed."""
    allowed(scenario).check(host, addresses)


def check_plan(
    plan: Plan, target: Target, addresses: Sequence[str], origins: Sequence[str], scenario: Scenario
) -> None:
    """Raise LimitError if a plan targets the recording's own origin, is too fast or is too long.

    The hint gives the flag that permits the plan or, for a closed loop without a duration, the one that ends it.
    `origins` are the hosts in the recording. They and the default limits matter only for targets beyond loopback.
    """
    local = all(is_loopback(address) for address in addresses)
    origin = next((name for name in origins if _same_host(name, target.host)), "")
    if origin and not local and not scenario.allow_production:
        raise LimitError(
            f"the target {target.host} is where the recording was made: this may be production",
            hint="--allow-production, if you are sure",
        )
    _check_rate(plan, scenario, math.inf if local else DEFAULT_MAX_RATE_PER_S)
    _check_length(plan, scenario, None if local else DEFAULT_MAX_DURATION_NS)


def _same_host(recorded: str, host: str) -> bool:
    """Return whether a recorded Host header matches this host, ignoring the port."""
    name = (
        recorded.rpartition(":")[0]
        if re.search(r":\d*$", recorded) and recorded.count(":") == 1
        else recorded
    )
    return _plain(re.sub(r"\]:\d+$", "]", name)) == _plain(host)


def _check_rate(plan: Plan, scenario: Scenario, default_per_s: float) -> None:
    limit = default_per_s if scenario.max_rate_per_s is None else scenario.max_rate_per_s
    peak = math.inf if plan.peak_1s_per_s is None else plan.peak_1s_per_s
    if peak <= limit:
        return
    beyond = "" if scenario.max_rate_per_s is not None else " beyond this machine"
    if plan.peak_1s_per_s is None:
        raise LimitError(
            f"a closed loop has no maximum rate; the limit{beyond} is {units.format_rate(limit)}",
            hint="--max-rate max allows it",
        )
    raise LimitError(
        f"the plan's busiest second has {units.counted(max(round(peak), 1), 'request')};"
        f" the limit{beyond} is {units.format_rate(limit)}",
        hint=f"--max-rate {math.ceil(peak)}/s allows it",
    )


def _check_length(plan: Plan, scenario: Scenario, default_ns: int | None) -> None:
    limit_ns = default_ns if scenario.max_duration_ns is None else scenario.max_duration_ns
    if limit_ns is None:
        return
    beyond = "" if scenario.max_duration_ns is not None else " beyond this machine"
    limit = f"the limit{beyond} is {units.format_duration(limit_ns)}"
    if plan.length_ns is None:
        raise LimitError(f"the length of a closed loop is unknown; {limit}", hint="set a duration: -d 30s")
    if plan.length_ns > limit_ns:
        needed = units.duration_text(
            math.ceil(plan.length_ns / (60 * units.SECOND_NS)) * 60 * units.SECOND_NS
        )
        raise LimitError(
            f"the plan takes {units.format_duration(plan.length_ns)}; {limit}",
            hint=f"--max-duration {needed} allows it",
        )
