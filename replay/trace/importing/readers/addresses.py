"""Recognizes network addresses: a client usually is one, but a requested host rarely is."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable

PORT_KEYS = frozenset({"port", "remote_port", "client_port", "source_port", "src_port"})
"""If one of these fields is present, an address in `host` is the client's."""

_PORTED = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<v4>\d+\.\d+\.\d+\.\d+))(?::\d+)?")


@functools.lru_cache(maxsize=4096)
def is_address(text: str) -> bool:
    """Return whether a text is an IPv4 or IPv6 address, with or without a port."""
    found = _PORTED.fullmatch(text)
    try:
        ipaddress.ip_address((found["v6"] or found["v4"]) if found else text)
    except ValueError:
        return False
    return True


def are_addresses(texts: Iterable[str]) -> bool:
    """Return whether more than half of the texts are addresses; empty ones and `-` do not count."""
    present = [text for text in texts if text not in ("", "-")]
    return 2 * sum(map(is_address, present)) > len(present)
