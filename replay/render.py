"""How a scenario writes requests: everything that is the same for every row, rendered once for the kernel."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay_native import plan as columns
from replay_native import render as kernels
from replay_native.feed import HEAD, IDEMPOTENT

from . import units
from .errors import LimitError, UsageError
from .naming import first_naming
from .scenario import BODY_METHODS, BodyRule, Scenario, Target
from .trace import Requests, Trace

IDEMPOTENT_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
"""RFC 9110, 9.2.2: sent once more when a reused connection ends before the answer."""

REQUEST_BYTES_MAX = 64 << 20
"""The largest request, body and all: several of them fit the largest feed."""

_PLACEHOLDER = re.compile(rb"\{(uuid|email|client|n)\}")
_KINDS = {b"uuid": kernels.UUID, b"email": kernels.EMAIL, b"client": kernels.CLIENT, b"n": kernels.NUMBER}
_FIXED_BYTES = {kernels.UUID: kernels.UUID_BYTES, kernels.EMAIL: kernels.EMAIL_BYTES}
_TARGET_BYTES_TYPICAL = 64

Part = tuple[int, bytes]
"""A part of a template: its kind (see the kernel), and the bytes of a literal."""


@dataclass(frozen=True, slots=True)
class Template:
    """A body, cut into parts."""

    parts: tuple[Part, ...]
    content_type: str


@dataclass(frozen=True, slots=True, eq=False)
class RecordedBodies:
    """The bodies that a trace holds, as the kernel takes them; `trace` keeps their memory."""

    trace: Trace
    content_types: tuple[bytes, ...]
    type_of_headers: npt.NDArray[np.int32]
    batches: npt.NDArray[np.int64]
    mean_bytes: int
    largest_bytes: int


def recorded_bodies(trace: Trace) -> RecordedBodies | None:
    """The recorded bodies of a trace; None where it has none."""
    batches, mean_bytes, largest_bytes = trace.requests.body_batches()
    if len(batches) == 1:
        return None
    names, type_of_headers = trace.requests.content_types()
    return RecordedBodies(trace, tuple(names), type_of_headers, batches, mean_bytes, largest_bytes)


@dataclass(frozen=True, slots=True)
class RenderSpec:
    """Everything of a request but its row. `x_replay` is the run's id where requests are numbered, else None.

    `headers` are the serialised header lines, Host first; `route_template` is by route the index of its body,
    or -1.
    """

    methods: tuple[str, ...]
    base_path: bytes
    headers: bytes
    templates: tuple[Template, ...]
    route_template: tuple[int, ...]
    seed: int
    x_replay: bytes | None = None
    recorded: RecordedBodies | None = None

    def numbered(self, run_id: str) -> RenderSpec:
        """The same, with `X-Replay: RUN-SEQ` on every request."""
        return dataclasses.replace(self, x_replay=run_id.encode("ascii"))

    @property
    def typical_bytes(self) -> int:
        """About the bytes of a request: for the size of a feed."""
        bodies = max((sum(len(text) + 36 for _, text in t.parts) for t in self.templates), default=0)
        if self.recorded is not None:
            bodies = max(bodies, self.recorded.mean_bytes)
        return len(self.headers) + len(self.base_path) + bodies + _TARGET_BYTES_TYPICAL + 64

    def table(self) -> kernels.RenderTable:
        """As the kernel takes it. Keep it for as long as it is used."""
        constant = b" HTTP/1.1\r\n" + self.headers
        if self.x_replay is not None:
            constant += b"X-Replay: " + self.x_replay + b"-"
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
            numbered=np.array([self.x_replay is not None], np.uint8),
            route_template=np.array(self.route_template, np.int32),
            seed=np.array([self.seed & (2**64 - 1)], np.uint64),
            type_of_headers=np.empty(0, np.int32) if self.recorded is None else self.recorded.type_of_headers,
            bodies=np.zeros((1, 3), np.int64) if self.recorded is None else self.recorded.batches,
            **self._template_arrays(),
        )

    def _template_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        literals = bytearray()
        kinds, begins, ends, fixed, heads, first_parts = [], [], [], [], [], [0]
        for template in self.templates:
            head = b"Content-Type: " + template.content_type.encode("latin-1") + b"\r\nContent-Length: "
            heads.append((len(literals), len(literals) + len(head)))
            literals += head
            for kind, text in template.parts:
                kinds.append(kind)
                begins.append(len(literals))
                literals += text
                ends.append(len(literals))
            fixed.append(sum(_FIXED_BYTES.get(kind, len(text)) for kind, text in template.parts))
            first_parts.append(len(kinds))
        type_heads = []
        for name in (b"", *(() if self.recorded is None else self.recorded.content_types)):
            head = b"Content-Type: " + name + b"\r\nContent-Length: " if name else b"Content-Length: "
            type_heads.append((len(literals), len(literals) + len(head)))
            literals += head
        return {
            "type_heads": np.array(type_heads, np.int64),
            "template_parts": np.array(first_parts, np.int64),
            "template_fixed": np.array(fixed, np.int64),
            "template_heads": np.array(heads, np.int64).reshape(-1, 2),
            "kinds": np.array(kinds, np.uint8),
            "begins": np.array(begins, np.int64),
            "ends": np.array(ends, np.int64),
            "literals": _bytes(bytes(literals)),
        }


def _bytes(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytearray(data), np.uint8)


def flags_of(method: str) -> int:
    """The kernel's flags of a method."""
    return (
        (HEAD if method == "HEAD" else 0)
        | (IDEMPOTENT if method in IDEMPOTENT_METHODS else 0)
        | (kernels.BODY if method in BODY_METHODS else 0)
    )


def request_table(trace: Trace) -> npt.NDArray[np.int64]:
    """Raw addresses of the requests dictionary, int64[batches, TABLE_COLUMNS]; valid for as long as the
    trace.
    """
    rows = [(b.offsets, b.data, b.method, b.route, b.host, b.headers, b.body) for b in trace.requests.batches]
    table = np.zeros((len(rows), columns.TABLE_COLUMNS), np.int64)
    for index, row in enumerate(rows):
        table[index, : len(row)] = [column.ctypes.data for column in row]
    return table


def parse_template(body: bytes, *, fill: bool = True) -> tuple[Part, ...]:
    """Cut a body at its placeholders. Any other brace stands for itself."""
    parts: list[Part] = []
    at = 0
    for match in _PLACEHOLDER.finditer(body) if fill else ():
        if match.start() > at:
            parts.append((kernels.LITERAL, body[at : match.start()]))
        parts.append((_KINDS[match[1]], b""))
        at = match.end()
    if at < len(body):
        parts.append((kernels.LITERAL, body[at:]))
    return tuple(parts)


def rules_by_route(requests: Requests, rules: tuple[BodyRule, ...]) -> list[int]:
    """By route, the index of the first rule that names it, or -1. UsageError where a rule names no route."""
    for index, rule in enumerate(rules):
        method, space, _ = rule.route.partition(" ")
        if space and method.isalpha() and method not in BODY_METHODS:
            raise UsageError(
                f"body[{index}].route: a {method} request carries no body",
                hint=f"{', '.join(BODY_METHODS)} do",
            )
    where = [f"body[{index}].route" for index in range(len(rules))]
    return first_naming(requests.routes, requests.actions, [rule.route for rule in rules], where)


def check_bodies(requests: Requests, scenario: Scenario, bodiless: npt.NDArray[np.int64]) -> None:
    """Refuse a plan whose requests lack a body: `bodiless` counts by route those that need one."""
    rules = rules_by_route(requests, scenario.body)
    by_route = zip(requests.routes, rules, bodiless.tolist(), strict=True)
    lacking = [route for route, rule, rows in by_route if rows and rule < 0]
    if lacking and not scenario.empty_bodies:
        shown = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        raise UsageError(
            f"the recording holds no bodies for {shown}",
            hint="give a [[body]] rule for each in the scenario, or --empty-bodies to send them without",
        )


def make_render_spec(trace: Trace, scenario: Scenario, target: Target) -> RenderSpec:
    """Everything of the requests that the scenario decides. UsageError for a header or body that cannot be
    sent.
    """
    lines = [("Host", scenario.host or target.authority), *scenario.request_headers()]
    headers = "".join(f"{name}: {value}\r\n" for name, value in lines).encode("latin-1")
    templates = tuple(
        Template(parse_template(rule.read(), fill=rule.fill), rule.content_type) for rule in scenario.body
    )
    for rule, template in zip(scenario.body, templates, strict=True):
        size = sum(len(text) for _, text in template.parts)
        if size > REQUEST_BYTES_MAX:
            raise LimitError(
                f"the body of {rule.route} is {units.format_bytes(size)};"
                f" at most {units.format_bytes(REQUEST_BYTES_MAX)} can be sent"
            )
    return RenderSpec(
        methods=tuple(trace.requests.methods),
        base_path=target.base_path.encode("ascii"),
        headers=headers,
        templates=templates,
        route_template=tuple(rules_by_route(trace.requests, scenario.body)),
        seed=scenario.seed,
        recorded=recorded_bodies(trace),
    )
