"""Readers of JSON logs with known keys, and how to register such a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    importer,
)
from replay_native.importing import field_spec

from .addresses import PORT_KEYS, are_addresses
from .fields import FieldReader
from .json_objects import objects, paths_of
from .layout import Layout
from .lines import sniffed_lines
from .templates import first_named


def settled_host(
    found: Found, known: Mapping[str, int], names: list[str], values: list[dict[str, Any]]
) -> Mapping[str, int]:
    """Return the roles of the keys, corrected if most values of `host` are addresses.

    If there is a port key, `host` is then the client; otherwise it is ignored.
    """
    if known.get("host") != field_spec.HOST or "host" not in names:
        return known
    if not are_addresses(str(value.get("host") or "") for value in values):
        return known
    if not PORT_KEYS.isdisjoint(names):
        found.assume("most values of `host` are addresses, and a port is beside them: taken for the client")
        return {**known, "host": field_spec.CLIENT_NAME}
    found.assume("most values of `host` are addresses: neither kept as the host nor taken for the client")
    return {name: role for name, role in known.items() if name != "host"}


class KeyedReader(FieldReader):
    """Reads JSON objects with known keys.

    If several keys have one role, the first one present is used.
    """

    def __init__(self, found: Found, options: Options, keys: Mapping[str, int], **more: Any) -> None:
        self._known, self._more = keys, more
        super().__init__(found, options, Layout(keys=keys, escapes=field_spec.JSON_ESCAPES, **more))

    def probe(self, head: bytes) -> Probe:
        """Choose the keys that the head has, then return its first timestamp and the resolution."""
        names = paths_of(head)
        known = settled_host(self._found, self._known, names, objects(head))
        roles = first_named(known, names)
        keys = {name: role for name, role in zip(names, roles, strict=True) if role >= 0} or self._known
        at_unit_ns, least_ns = self.layout.at_unit_ns, self.layout.stamp_min_ns
        layout = Layout(keys=keys, escapes=field_spec.JSON_ESCAPES, **self._more)
        self.use(replace(layout, at_unit_ns=layout.at_unit_ns or at_unit_ns, stamp_min_ns=least_ns))
        return super().probe(head)


def register(
    name: str, title: str, keys: Mapping[str, int], *, needs: tuple[str, ...], **more: Any
) -> Importer:
    """Register a format of JSON objects that have the keys `needs`."""

    def sniff(head: bytes, options: Options) -> float:
        if options.columns:
            return 0.0
        having = [value for value in objects(head) if all(_has(value, path) for path in needs)]
        return len(having) / max(len(sniffed_lines(head)), 1)

    def reader(found: Found, options: Options) -> KeyedReader:
        return KeyedReader(found, options, keys, **more)

    return importer(Importer(name=name, title=title, sniff=sniff, reader=reader, rank=2))


def _has(value: Any, path: str) -> bool:
    name, dot, rest = path.partition(".")
    return isinstance(value, dict) and name in value and (not dot or _has(value[name], rest))
