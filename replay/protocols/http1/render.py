"""The parts that all requests of a run have in common, rendered once, for the render kernel."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replay.settings.scenario import BODY_METHODS
from replay.trace import Trace
from replay_native.feed.ring import HEAD, IDEMPOTENT
from replay_native.http1 import render as kernels
from replay_native.templates.text import LITERAL

from .recorded_headers import NOTHING, RecordedLines
from .templates import NO_PATCHES, Part, Patches, Template, Values, is_link

IDEMPOTENT_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
"""Idempotent methods (RFC 9110, section 9.2.2).

Their requests may be retried, and are resent once if a reused connection closes before the response.
"""

_TARGET_BYTES_TYPICAL = 64

ClientNetwork = tuple[int, int]
CLIENT_NETWORKS: dict[str, ClientNetwork] = {
    "10.0.0.0/8": (10 << 24, 0xFFFFFF),
    "198.18.0.0/15": (198 << 24 | 18 << 16, 0x1FFFF),
}
"""IPv4 networks for simulated clients: the network, and the mask of its host bits (RFC 1918, RFC 2544)."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordedBodies:
    """The bodies of a trace, for the kernel. `trace` is referenced so that their memory stays valid."""

    trace: Trace
    content_types: tuple[bytes, ...]
    type_of_headers: npt.NDArray[np.int32]
    batches: npt.NDArray[np.int64]
    mean_bytes: int
    largest_bytes: int


def recorded_bodies(trace: Trace) -> RecordedBodies | None:
    """Return the recorded bodies of a trace; None if it has none."""
    batches, mean_bytes, largest_bytes = trace.requests.body_batches()
    if len(batches) == 1:
        return None
    names, type_of_headers = trace.requests.content_types()
    return RecordedBodies(trace, tuple(names), type_of_headers, batches, mean_bytes, largest_bytes)


@dataclass(frozen=True, slots=True)
class RenderSpec:
    """Everything in a request that does not depend on its row.

    `x_replay` is the run's id if requests are numbered, else None. `trace_seed` is the seed of trace ids if
    requests have a traceparent, else 0. `headers` are the serialized header lines, Host first. By route,
    `route_template`, `route_head` and `route_path` are the indices of its body, its headers (in place of
    `headers`) and its path; -1 means that the route has none of its own. `auth` is a header line that is known
    only when the run begins. `route_flags` are the flags of every entry of a route.
    """

    methods: tuple[str, ...]
    base_path: bytes
    headers: bytes
    templates: tuple[Template, ...]
    route_template: tuple[int, ...]
    seed: int
    values: Values
    heads: tuple[Template, ...] = ()
    route_head: tuple[int, ...] = ()
    paths: tuple[Template, ...] = ()
    route_path: tuple[int, ...] = ()
    route_flags: tuple[int, ...] = ()
    auth: bytes = b""
    x_replay: bytes | None = None
    trace_seed: int = 0
    recorded: RecordedBodies | None = None
    lines: RecordedLines = NOTHING
    patches: Patches = NO_PATCHES
    run_salt: int = 0
    client_network: ClientNetwork = CLIENT_NETWORKS["10.0.0.0/8"]

    def numbered(self, run_id: str) -> RenderSpec:
        """Return a copy with `X-Replay: RUN-SEQ` on every request."""
        return dataclasses.replace(self, x_replay=run_id.encode("ascii"))

    def traced(self, seed: int) -> RenderSpec:
        """Return a copy with a traceparent on every request; without one if the seed is 0."""
        return dataclasses.replace(self, trace_seed=seed)

    def of_run(self, run_id: str) -> RenderSpec:
        """Return a copy with the salt of this run, which changes the values of variables that differ between runs."""
        digest = hashlib.blake2b(run_id.encode(), digest_size=8).digest()
        return dataclasses.replace(self, run_salt=int.from_bytes(digest, "big"))

    def authorised(self, line: bytes) -> RenderSpec:
        """Return a copy with this header line on every request."""
        return dataclasses.replace(self, auth=line)

    @property
    def typical_bytes(self) -> int:
        """An estimate of the bytes of a request, to size a feed."""
        bodies = max(map(self._typical_of, self.templates), default=0)
        if self.recorded is not None:
            bodies = max(bodies, self.recorded.mean_bytes)
        heads = max(map(self._typical_of, self.heads), default=0)
        targets = max(map(self._typical_of, self.paths), default=0)
        headers = max(len(self.headers), heads) + len(self.auth) + self.lines.typical_bytes
        return headers + len(self.base_path) + bodies + targets + _TARGET_BYTES_TYPICAL + 64

    def _typical_of(self, template: Template) -> int:
        return sum(len(part.text) + 36 for part in template.parts)

    def table(self) -> kernels.RenderTable:
        """Make the bundle for the kernel. The caller must keep a reference to it while the kernel uses it."""
        last = self.auth
        if self.x_replay is not None:
            last += b"X-Replay: " + self.x_replay + b"-"
        constant = b" HTTP/1.1\r\n" + self.headers + last
        bodies, paths, heads, patches = len(self.templates), len(self.paths), len(self.heads), self.patches
        own = bodies + paths + heads
        names = [method.encode("latin-1") + b" " for method in self.methods]
        prefixes = [name + self.base_path for name in names]
        prefix_ends = np.cumsum([0, *(len(prefix) for prefix in prefixes)], dtype=np.int64)
        bare_ends = prefix_ends[:-1] + np.array([len(name) for name in names], np.int64)
        return kernels.RenderTable(
            prefix=_bytes(b"".join(prefixes)),
            prefix_ends=prefix_ends,
            bare_ends=bare_ends,
            flags=np.array([flags_of(method) for method in self.methods], np.int64),
            headers=_bytes(constant),
            numbered=self.x_replay is not None,
            trace_seed=self.trace_seed,
            route_template=np.array(self.route_template, np.int32),
            route_flags=np.array(self.route_flags or [0] * len(self.route_template), np.int64),
            route_path=_places(self.route_path, bodies, len(self.route_template)),
            route_head=_places(self.route_head, bodies + paths, len(self.route_template)),
            seed=self.seed & (2**64 - 1),
            type_of_headers=np.empty(0, np.int32) if self.recorded is None else self.recorded.type_of_headers,
            bodies=np.zeros((1, 3), np.int64) if self.recorded is None else self.recorded.batches,
            of_host=self.lines.of_host,
            of_headers=self.lines.of_headers,
            recorded_ends=self.lines.ends,
            recorded=self.lines.data,
            client_network=self.client_network[0],
            client_hosts=self.client_network[1],
            request_template=_places_of_requests(patches.request_body, own),
            request_path=_places_of_requests(patches.request_path, own + len(patches.bodies)),
            request_head=_places_of_requests(
                patches.request_head, own + len(patches.bodies) + len(patches.paths)
            ),
            **self._template_arrays(last),
            **self.values.arrays(),
        )

    def _template_arrays(self, last: bytes) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of all templates: bodies, paths and heads.

        `last` are the last header lines of every request, which are appended to each head.
        """
        literals = bytearray()
        kinds, begins, ends, fixed, patches, whole, heads, first_parts = [], [], [], [], [], [], [], [0]
        salts: list[int] = []

        def finished(heads: Sequence[Template]) -> list[Template]:
            return [Template((*head.parts, Part(LITERAL, last))) for head in heads]

        own = self.patches
        for template in (
            *self.templates, *self.paths, *finished(self.heads), *own.bodies, *own.paths, *finished(own.heads),
        ):  # fmt: skip
            kind = template.content_type.encode("latin-1")
            head = b"Content-Type: " + kind + b"\r\nContent-Length: " if kind else b"Content-Length: "
            heads.append((len(literals), len(literals) + len(head)))
            literals += head
            for part in template.parts:
                kinds.append(part.kind)
                begins.append(part.number if part.kind >= kernels.COLUMN_BY_CLIENT else len(literals))
                literals += part.text
                ends.append(len(literals))
                salts.append((part.salt ^ self.run_salt if part.each_run else part.salt) & (2**64 - 1))
            fixed.append(template.fixed_bytes)
            patches.append(template.patches)
            whole.append(any(b"?" in part.text or is_link(part) for part in template.parts))
            first_parts.append(len(kinds))
        type_heads = []
        for name in (b"", *(() if self.recorded is None else self.recorded.content_types)):
            head = b"Content-Type: " + name + b"\r\nContent-Length: " if name else b"Content-Length: "
            type_heads.append((len(literals), len(literals) + len(head)))
            literals += head
        return {
            "type_heads": np.array(type_heads, np.int64),
            "template_patches": np.array(patches, np.int64),
            "path_whole": np.array(whole, np.uint8),
            "template_parts": np.array(first_parts, np.int64),
            "template_fixed": np.array(fixed, np.int64),
            "template_heads": np.array(heads, np.int64).reshape(-1, 2),
            "kinds": np.array(kinds, np.uint8),
            "begins": np.array(begins, np.int64),
            "ends": np.array(ends, np.int64),
            "salts": np.array(salts, np.uint64),
            "literals": _bytes(bytes(literals)),
        }


def _places(of_route: Sequence[int], first: int, routes: int) -> npt.NDArray[np.int32]:
    """Return the number of each route's template, or -1. These templates begin at number `first`."""
    places = np.array(of_route or [-1] * routes, np.int32)
    return np.where(places < 0, places, places + first).astype(np.int32)


def _places_of_requests(of_request: npt.NDArray[np.int32], first: int) -> npt.NDArray[np.int32]:
    """Return the number of each request's template, or -1. Templates of requests begin at number `first`."""
    return np.where(of_request < 0, of_request, of_request + first).astype(np.int32)


def _bytes(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytearray(data), np.uint8)


def flags_of(method: str) -> int:
    """Return the kernel's flags of a method."""
    return (
        (HEAD if method == "HEAD" else 0)
        | (IDEMPOTENT if method in IDEMPOTENT_METHODS else 0)
        | (kernels.BODY if method in BODY_METHODS else 0)
    )
