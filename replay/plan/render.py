"""How a scenario writes requests: everything that is the same for every row, rendered once for the kernel."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import LimitError, UsageError
from replay.naming import first_naming, named_by
from replay.settings.headers import MANAGED_HEADERS, expand
from replay.settings.scenario import BODY_METHODS, BodyRule, Scenario
from replay.settings.session_rules import SetRule
from replay.settings.target import Target
from replay.trace import Requests, Trace
from replay_native.feed.ring import EVALUATED, HEAD, IDEMPOTENT
from replay_native.http1 import render as kernels
from replay_native.http1.sessions import JAR_SLOT
from replay_native.templates.text import LITERAL
from replay_native.trace import columns

from .recorded_headers import (
    NOTHING,
    RecordedLines,
    is_chosen,
    recorded_lines,
)
from .sessions import SessionSpec, slots_of
from .templates import (
    Part,
    Template,
    Values,
    encoding_of_body,
    is_link,
    merged,
    parse_path,
    parse_template,
)

IDEMPOTENT_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE")
"""RFC 9110, 9.2.2: sent once more when a reused connection ends before the answer."""

REQUEST_BYTES_MAX = 64 << 20
"""The largest request, body and all: several of them fit the largest feed."""

_TARGET_BYTES_TYPICAL = 64

ClientNetwork = tuple[int, int]
CLIENT_NETWORKS: dict[str, ClientNetwork] = {
    "10.0.0.0/8": (10 << 24, 0xFFFFFF),
    "198.18.0.0/15": (198 << 24 | 18 << 16, 0x1FFFF),
}
"""IPv4 networks of clients: the network, and the bits of a host in it (RFC 1918, RFC 2544)."""


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

    `headers` are the serialised header lines, Host first. By route `route_template`, `route_head` and `route_path` are the
    indices of its body, of what it has in place of `headers`, and of its path; -1 where it has none of its own. `auth` is
    a header line that is known only when the run begins. `route_flags` are those of every entry of a route.
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
    recorded: RecordedBodies | None = None
    lines: RecordedLines = NOTHING
    client_network: ClientNetwork = CLIENT_NETWORKS["10.0.0.0/8"]

    def numbered(self, run_id: str) -> RenderSpec:
        """The same, with `X-Replay: RUN-SEQ` on every request."""
        return dataclasses.replace(self, x_replay=run_id.encode("ascii"))

    def authorised(self, line: bytes) -> RenderSpec:
        """The same, with a header line of its own on every request."""
        return dataclasses.replace(self, auth=line)

    @property
    def typical_bytes(self) -> int:
        """About the bytes of a request: for the size of a feed."""
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
        """As the kernel takes it. Keep it for as long as it is used."""
        last = self.auth
        if self.x_replay is not None:
            last += b"X-Replay: " + self.x_replay + b"-"
        constant = b" HTTP/1.1\r\n" + self.headers + last
        bodies, paths = len(self.templates), len(self.paths)
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
            **self._template_arrays(last),
            **self.values.arrays(),
        )

    def _template_arrays(self, last: bytes) -> dict[str, npt.NDArray[np.generic]]:
        """All templates: bodies, paths, and heads, which end with the lines that all requests have last."""
        literals = bytearray()
        kinds, begins, ends, fixed, patches, whole, heads, first_parts = [], [], [], [], [], [], [], [0]
        finished = [Template((*head.parts, Part(LITERAL, last))) for head in self.heads]
        for template in (*self.templates, *self.paths, *finished):
            head = b"Content-Type: " + template.content_type.encode("latin-1") + b"\r\nContent-Length: "
            heads.append((len(literals), len(literals) + len(head)))
            literals += head
            for part in template.parts:
                kinds.append(part.kind)
                begins.append(part.number if part.kind >= kernels.COLUMN_BY_CLIENT else len(literals))
                literals += part.text
                ends.append(len(literals))
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
            "literals": _bytes(bytes(literals)),
        }


def _places(of_route: Sequence[int], first: int, routes: int) -> npt.NDArray[np.int32]:
    """By route its template among those from `first` on, or -1."""
    places = np.array(of_route or [-1] * routes, np.int32)
    return np.where(places < 0, places, places + first).astype(np.int32)


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


def make_render_spec(trace: Trace, scenario: Scenario, target: Target, sessions: SessionSpec) -> RenderSpec:
    """Everything of the requests that the scenario decides. UsageError for a header or body that cannot be
    sent.
    """
    lines, recorded = header_lines(trace, scenario, target)
    headers = b"".join(part.text for line in lines for part in line.parts)
    links = {rule.name for rule in scenario.capture if rule.as_ == "path"}
    values = Values(scenario.variable, slots_of(scenario).numbers, links)
    templates = tuple(
        Template(
            parse_template(rule.read(), values, encoding_of_body(rule.content_type), fill=rule.fill),
            rule.content_type,
        )
        for rule in scenario.body
    )
    for rule, template in zip(scenario.body, templates, strict=True):
        size = template.fixed_bytes + values.longest_bytes * sum(
            part.kind >= kernels.COLUMN_BY_CLIENT for part in template.parts
        )
        if size > REQUEST_BYTES_MAX:
            raise LimitError(
                f"the body of {rule.route} is {units.format_bytes(size)};"
                f" at most {units.format_bytes(REQUEST_BYTES_MAX)} can be sent"
            )
    heads, route_head = _heads(trace.requests, scenario, lines, values)
    paths, route_path = _paths(trace.requests, scenario, values)
    return RenderSpec(
        methods=tuple(trace.requests.methods),
        base_path=target.base_path.encode("ascii"),
        headers=headers,
        templates=templates,
        route_template=tuple(rules_by_route(trace.requests, scenario.body)),
        seed=scenario.seed,
        values=values,
        heads=heads,
        route_head=route_head,
        paths=paths,
        route_path=route_path,
        route_flags=tuple(
            EVALUATED * sessions.evaluates(route) for route in range(len(trace.requests.routes))
        ),
        recorded=recorded_bodies(trace),
        lines=recorded,
        client_network=CLIENT_NETWORKS.get(scenario.client_ip_range, CLIENT_NETWORKS["10.0.0.0/8"]),
    )


class Line(NamedTuple):
    """A header line as it is sent, its end with it; of recorded lines, which are several, `name` is empty."""

    name: str
    parts: tuple[Part, ...]

    @property
    def is_constant(self) -> bool:
        """Whether it is the same for every request."""
        return all(part.kind == LITERAL for part in self.parts)


def header_lines(trace: Trace, scenario: Scenario, target: Target) -> tuple[list[Line], RecordedLines]:
    """The headers of every request, Host first; and what of them was recorded. UsageError for one that cannot be sent."""
    given = {name.lower() for name in scenario.headers}
    given |= {rule.header.lower() for rule in scenario.set if rule.header is not None}
    constant = [("Host", scenario.host or target.authority), *scenario.request_headers()]
    if scenario.connect == "per-request":
        # RFC 9112, 9.6: who sends no more on a connection says so.
        constant.append(("Connection", "close"))
    kept = {name.lower(): (name, value) for name, value in constant}
    sends_host = "host" in scenario.send_headers or bool(scenario.rewrite_host)
    recorded = NOTHING
    if scenario.send_headers or sends_host:

        def chosen(name: str) -> bool:
            return name not in given and is_chosen(name, scenario.send_headers, MANAGED_HEADERS)

        replaced = {name: pair for name, pair in kept.items() if chosen(name)}
        recorded = recorded_lines(
            trace.requests, host=constant[0][1], sends_host="host" in scenario.send_headers,
            names=scenario.rewrite_host, chosen=chosen, defaults=replaced,
        )  # fmt: skip
        kept = {name: pair for name, pair in kept.items() if name not in replaced}
    lines = [Line(name, (Part(LITERAL, _line(name, value)),)) for name, value in kept.values()]
    if sends_host:
        lines[0] = Line("Host", (Part(kernels.RECORDED_HOST),))
    if scenario.send_headers:
        lines.append(Line("", (Part(kernels.RECORDED_LINES),)))
    if scenario.client_ip_header:
        lines.append(_client_line(scenario.client_ip_header, scenario.client_ip_range))
    return lines, recorded


def _line(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode("latin-1")


def _client_line(name: str, network: str) -> Line:
    """The header that says which client asks; Forwarded has a form of its own (RFC 7239, 4)."""
    ipv6 = ":" in network
    before, after = "", ""
    if name.lower() == "forwarded":
        before, after = ('for="[', ']"') if ipv6 else ("for=", "")
    kind = kernels.CLIENT_IPV6 if ipv6 else kernels.CLIENT_IPV4
    texts = f"{name}: {before}".encode(), f"{after}\r\n".encode()
    return Line(name, (Part(LITERAL, texts[0]), Part(kind), Part(LITERAL, texts[1])))


def set_rules_by_route(requests: Requests, rules: Sequence[SetRule]) -> list[list[SetRule]]:
    """By route the [[set]] rules that it has. UsageError where a rule names no route."""
    found: list[list[SetRule]] = [[] for _ in requests.routes]
    for index, rule in enumerate(rules):
        named = set(named_by(requests.routes, requests.actions, rule.route, f"set[{index}].route"))
        for other in rule.without:
            named -= set(named_by(requests.routes, requests.actions, other, f"set[{index}].without"))
        for route in named:
            found[route].append(rule)
    return found


def _numbered(wanted: Sequence[Template | None]) -> tuple[tuple[Template, ...], tuple[int, ...]]:
    """The different templates, and by route the number of its own, or -1."""
    different = list(dict.fromkeys(template for template in wanted if template is not None))
    return tuple(different), tuple(
        -1 if template is None else different.index(template) for template in wanted
    )


def _heads(
    requests: Requests, scenario: Scenario, lines: Sequence[Line], values: Values
) -> tuple[tuple[Template, ...], tuple[int, ...]]:
    """What routes have in place of the headers of all: those with [[set]] headers of their own, of which a later one wins;
    and every route, where headers are not the same for all requests.
    """
    environ = dict(os.environ)
    constant = all(line.is_constant for line in lines)
    wanted: list[Template | None] = []
    for rules in set_rules_by_route(requests, scenario.set):
        own = {rule.header.lower(): rule for rule in rules if rule.header is not None}
        if not own and constant and not scenario.cookies:
            wanted.append(None)
            continue
        parts = [Part(LITERAL, b" HTTP/1.1\r\n")]
        parts += [part for line in lines if line.name.lower() not in own for part in line.parts]
        for name, rule in own.items():
            value = expand(f"the header {rule.header}", rule.value or "", environ).encode("latin-1")
            parts.append(Part(LITERAL, f"{rule.header}: ".encode("ascii")))
            parts += parse_template(value, values, "cookie" if name == "cookie" else "raw")
            parts.append(Part(LITERAL, b"\r\n"))
        if scenario.cookies:
            parts.append(Part(kernels.CAPTURED, number=JAR_SLOT))
        wanted.append(Template(merged(parts)))
    return _numbered(wanted)


def _paths(
    requests: Requests, scenario: Scenario, values: Values
) -> tuple[tuple[Template, ...], tuple[int, ...]]:
    """The paths of routes that [[set]] gives one; a later rule wins."""
    wanted: list[Template | None] = []
    for rules in set_rules_by_route(requests, scenario.set):
        own = [rule.path for rule in rules if rule.path is not None]
        wanted.append(Template(parse_path(own[-1], values)) if own else None)
    return _numbered(wanted)
