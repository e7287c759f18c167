"""Turns a scenario into a `RenderSpec`: header lines, bodies, paths and headers by route."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import LimitError, UsageError
from replay.naming import first_naming, named_by
from replay.settings.headers import MANAGED_HEADERS, OF_TRACE_CONTEXT, expand
from replay.settings.scenario import BODY_METHODS, BodyRule, Scenario
from replay.settings.session_rules import SetRule, Variable
from replay.settings.target import Target
from replay.trace import Requests, Trace
from replay_native.feed.ring import EVALUATED
from replay_native.http1 import render as kernels
from replay_native.http1.sessions import JAR_SLOT
from replay_native.templates.text import LITERAL

from .patches import RuleOfRoute, is_by_request, make_patches
from .recorded_headers import (
    NOTHING,
    RecordedLines,
    is_chosen,
    recorded_lines,
)
from .render import CLIENT_NETWORKS, RenderSpec, recorded_bodies
from .session_spec import SessionSpec, slots_of
from .templates import (
    Part,
    Template,
    Values,
    encoding_of_body,
    merged,
    parse_path,
    parse_template,
)

REQUEST_BYTES_MAX = 64 << 20
"""The largest body that a rule may give a request, so that several requests fit the largest feed."""


def rules_by_route(requests: Requests, rules: tuple[BodyRule, ...]) -> list[int]:
    """Return the index of the first rule that matches each route, or -1.

    UsageError if a rule matches no route, or if it is for a method whose requests cannot have a body.
    """
    for index, rule in enumerate(rules):
        method, space, _ = rule.route.partition(" ")
        if space and method.isalpha() and method not in BODY_METHODS:
            raise UsageError(
                f"body[{index}].route: a {method} request cannot have a body",
                hint=f"{', '.join(BODY_METHODS)} requests can",
            )
    where = [f"body[{index}].route" for index in range(len(rules))]
    return first_naming(requests.routes, requests.actions, [rule.route for rule in rules], where)


def check_bodies(requests: Requests, scenario: Scenario, bodiless: npt.NDArray[np.int64]) -> None:
    """Raise UsageError if requests lack a body, unless `empty_bodies` is set. `bodiless` counts them by route."""
    rules = rules_by_route(requests, scenario.body)
    by_route = zip(requests.routes, rules, bodiless.tolist(), strict=True)
    lacking = [route for route, rule, rows in by_route if rows and rule < 0]
    if lacking and not scenario.empty_bodies:
        shown = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        raise UsageError(
            f"the recording has no bodies for {shown}",
            hint="add a [[body]] rule for each of them to the scenario, or --empty-bodies to send them without a body",
        )


def make_render_spec(trace: Trace, scenario: Scenario, target: Target, sessions: SessionSpec) -> RenderSpec:
    """Return everything in the requests that the scenario decides.

    UsageError for a header, body or rule that cannot be used; InputError for the file of a body or variable; LimitError
    for bodies or templates that are too large.
    """
    check_given(scenario.variable)
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
                f"the body of {rule.route} takes up to {units.format_bytes(size)};"
                f" at most {units.format_bytes(REQUEST_BYTES_MAX)} can be sent"
            )
    rules = set_rules_by_route(trace.requests, scenario.set)
    _check_one_body(trace.requests, scenario, rules)
    of_routes = _Heads(rules, scenario, lines, values)
    heads, route_head = _numbered([of_routes.of_route(route) for route in range(len(rules))])
    paths, route_path = _numbered([_path(of_route, values) for of_route in rules])
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
        patches=make_patches(trace.requests, rules, values, of_routes.template),
        route_flags=tuple(
            EVALUATED * sessions.evaluates(route) for route in range(len(trace.requests.routes))
        ),
        recorded=recorded_bodies(trace),
        lines=recorded,
        client_network=CLIENT_NETWORKS.get(scenario.client_ip_range, CLIENT_NETWORKS["10.0.0.0/8"]),
    )


def check_given(variables: Sequence[Variable]) -> None:
    """Raise UsageError, with all names, if the user has not given values for variables that need them."""
    unset = [
        variable for variable in variables if variable.env is not None and variable.env not in os.environ
    ]
    if unset:
        names = ", ".join(f"{variable.name} ({variable.env})" for variable in unset)
        raise UsageError(
            f"{units.counted(len(unset), 'variable')} of the scenario {'is' if len(unset) == 1 else 'are'} not set: {names}",
            hint=f"export {unset[0].env}=..., or give --set {unset[0].name}=VALUE",
        )


def _check_one_body(requests: Requests, scenario: Scenario, rules: Sequence[Sequence[RuleOfRoute]]) -> None:
    """Raise UsageError if a route has a [[body]] and a rule also sets fields of its recorded body."""
    for route, body in enumerate(rules_by_route(requests, scenario.body)):
        for one in rules[route]:
            if body >= 0 and (one.rule.json is not None or one.rule.form is not None):
                raise UsageError(
                    f"set[{one.number}] sets a field of a recorded body, but"
                    f" body[{body}] replaces the recorded body of {requests.routes[route]}",
                    hint="put the value into the template of the [[body]], or remove the [[body]]",
                )


class Line(NamedTuple):
    """A header line as it is sent, with its line end. For recorded lines, which may be several, `name` is empty."""

    name: str
    parts: tuple[Part, ...]

    @property
    def is_constant(self) -> bool:
        """Whether the line is the same for every request."""
        return all(part.kind == LITERAL for part in self.parts)


def header_lines(trace: Trace, scenario: Scenario, target: Target) -> tuple[list[Line], RecordedLines]:
    """Return the headers of every request, Host first, and the recorded lines among them.

    UsageError for a header that cannot be sent.
    """
    given = {name.lower() for name in scenario.headers}
    given |= {rule.header.lower() for rule in scenario.set if rule.header is not None}
    given |= set(OF_TRACE_CONTEXT) if scenario.traceparent else set()
    given |= {scenario.auth.header.lower()} if scenario.auth.command else set()
    given.add(scenario.client_ip_header.lower())
    constant = [("Host", scenario.host or target.authority), *scenario.request_headers()]
    if scenario.connect == "per-request":
        # RFC 9112, 9.6: a client announces its last request on a connection.
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
    """Return the header with the address of the client. Forwarded has a syntax of its own (RFC 7239, section 4)."""
    ipv6 = ":" in network
    before, after = "", ""
    if name.lower() == "forwarded":
        before, after = ('for="[', ']"') if ipv6 else ("for=", "")
    kind = kernels.CLIENT_IPV6 if ipv6 else kernels.CLIENT_IPV4
    texts = f"{name}: {before}".encode(), f"{after}\r\n".encode()
    return Line(name, (Part(LITERAL, texts[0]), Part(kind), Part(LITERAL, texts[1])))


def set_rules_by_route(requests: Requests, rules: Sequence[SetRule]) -> list[list[RuleOfRoute]]:
    """Return the [[set]] rules of each route. UsageError if a rule matches no route."""
    found: list[list[RuleOfRoute]] = [[] for _ in requests.routes]
    for index, rule in enumerate(rules):
        named = set(named_by(requests.routes, requests.actions, rule.route, f"set[{index}].route"))
        for other in rule.without:
            named -= set(named_by(requests.routes, requests.actions, other, f"set[{index}].without"))
        for route in named:
            found[route].append(RuleOfRoute(index, rule))
    return found


def _numbered(wanted: Sequence[Template | None]) -> tuple[tuple[Template, ...], tuple[int, ...]]:
    """Return the different templates, and for each route the number of its template, or -1."""
    numbers: dict[Template, int] = {}
    places = tuple(
        -1 if template is None else numbers.setdefault(template, len(numbers)) for template in wanted
    )
    return tuple(numbers), places


class _Heads:
    """Makes the headers of routes that differ from the common ones.

    These are the routes with [[set]] headers (a later rule wins). They are all routes if clients have cookie jars, or
    if the common headers are not the same for every request.
    """

    def __init__(
        self,
        rules: Sequence[Sequence[RuleOfRoute]],
        scenario: Scenario,
        lines: Sequence[Line],
        values: Values,
    ) -> None:
        self._rules, self._lines, self._values, self._jar = rules, lines, values, scenario.cookies
        self._environ = dict(os.environ)
        self._always = scenario.cookies or not all(line.is_constant for line in lines)

    def of_route(self, route: int) -> Template | None:
        """Return the headers of a route; None if it has the common ones."""
        own = any(one.rule.header is not None and not one.rule.when_recorded for one in self._rules[route])
        return self.template(route, frozenset()) if own or self._always else None

    def template(self, route: int, recorded: frozenset[int]) -> Template:
        """Return the headers of a route. `recorded` has the numbers of the rules for recorded headers that apply."""
        own = {
            one.rule.header.lower(): one.rule
            for one in self._rules[route]
            if one.rule.header is not None and (not one.rule.when_recorded or one.number in recorded)
        }
        parts = [Part(LITERAL, b" HTTP/1.1\r\n")]
        parts += [part for line in self._lines if line.name.lower() not in own for part in line.parts]
        for name, rule in own.items():
            value = expand(f"the header {rule.header}", rule.value or "", self._environ).encode("latin-1")
            parts.append(Part(LITERAL, f"{rule.header}: ".encode("ascii")))
            parts += parse_template(value, self._values, "cookie" if name == "cookie" else "raw")
            parts.append(Part(LITERAL, b"\r\n"))
        if self._jar:
            parts.append(Part(kernels.CAPTURED, number=JAR_SLOT))
        return Template(merged(parts))


def _path(rules: Sequence[RuleOfRoute], values: Values) -> Template | None:
    """Return the path that [[set]] gives a route; a later rule wins.

    None if no rule sets the path, or if each request has a path of its own.
    """
    own = [one.rule.path for one in rules if one.rule.path is not None]
    by_request = any(one.rule.query is not None for one in rules) and "?" not in (own[-1] if own else "?")
    if not own or is_by_request(own[-1], values) or by_request:
        return None
    return Template(parse_path(own[-1], values))
