"""What no single knob of a scenario can say by itself: which go together, and which never."""

from __future__ import annotations

import re
from collections.abc import Callable

from replay import units
from replay.errors import UsageError
from replay.names.settings import parse_server

from .headers import check_header_name
from .kinds import statuses_of
from .scenario import FAILURES, Scenario
from .session_rules import Problem, captures_problem, names_problem
from .target import parse_target, sendable

OF_REQUESTS = ("host", "send_headers", "rewrite_host", "client_ip_header")
"""Knobs of an HTTP request's head."""

_BRACES = re.compile(r"\{([A-Za-z_]\w*(?:\[\w*\])?)\}")
_OF_RECORDS = re.compile(r"client|method|path|path\[\d{1,4}\]|n|at_ms|uuid|email")

NameOf = Callable[[str], str]
"""How to call a key in an error: its flag, or file, line and key."""


def check(scenario: Scenario, name_of: NameOf) -> None:
    """What no single knob can say by itself."""
    for name in scenario.headers:
        _check_header(name, f"headers.{name}", name_of)
    if scenario.host and not sendable(scenario.host):
        raise UsageError(
            f"{name_of('host')}: {scenario.host!r} is not a host", hint="write NAME or NAME:PORT"
        )
    for index, also in enumerate(scenario.also):
        try:
            parse_target(also.target)
        except UsageError as error:
            raise UsageError(f"{name_of(f'also[{index}].target')}: {error}", hint=error.hint) from None
    _check_headers_once(scenario, name_of)
    if scenario.resolver:
        try:
            parse_server(scenario.resolver)
        except UsageError as error:
            raise UsageError(f"{name_of('resolver')}: {error}", hint=error.hint) from None
    for index, rule in enumerate(scenario.body):
        if not sendable(rule.content_type.replace(" ", "")):
            raise UsageError(
                f"{name_of(f'body[{index}].content_type')}: {rule.content_type!r} cannot be sent",
                hint='write "application/json"',
            )
        if (rule.file is None) == (rule.template is None):
            raise UsageError(f"{name_of(f'body[{index}].route')}: give either file or template, and not both")
    _check_sessions(scenario, name_of)
    for key in ("duration", "compress_to", "timeout", "max_wait", "max_duration", "idle_timeout"):
        if getattr(scenario, f"{key}_ns") == 0:
            raise UsageError(f"{name_of(key)}: it must be above 0")
    if scenario.compress_to_ns is not None and float(scenario.speed) != 1:
        raise UsageError(
            f"{name_of('compress_to')}: it and speed both set the speed", hint="give one of them"
        )
    for key, value in (("peak", scenario.peak_per_s), ("compress_to", scenario.compress_to_ns)):
        if scenario.rate_per_s is not None and value is not None:
            raise UsageError(
                f"{name_of(key)}: a constant rate has no peaks, and no recorded times",
                hint=f"give either rate or {key}",
            )
    if scenario.peak_per_s == units.MAX_RATE:
        raise UsageError(f"{name_of('peak')}: max is no rate of a peak", hint="write 500/s")
    if scenario.rate_per_s is not None and float(scenario.speed) != 1:
        raise UsageError(
            f"{name_of('speed')}: a constant rate has no speed", hint="give either rate or speed"
        )
    _check_clients(scenario, name_of)
    _check_tls(scenario, name_of)
    _check_retry(scenario, name_of)
    _check_records(scenario, name_of)
    if scenario.duration_ns is not None and scenario.warm_up_ns >= scenario.duration_ns:
        raise UsageError(f"{name_of('warm_up')}: nothing is left to measure: the run is shorter")


def _check_tls(scenario: Scenario, name_of: NameOf) -> None:
    """What is asked of a target by TLS."""
    if scenario.tls.key and not scenario.tls.cert:
        raise UsageError(f"{name_of('tls.key')}: a key without its certificate", hint="give --cert FILE")
    if scenario.tls.insecure and scenario.tls.ca:
        raise UsageError(
            f"{name_of('tls.ca')}: nothing is verified with insecure, by whatever certificates",
            hint="give one of the two",
        )
    if not sendable(scenario.tls.server_name):
        raise UsageError(f"{name_of('tls.server_name')}: {scenario.tls.server_name!r} is not a name")


def _check_sessions(scenario: Scenario, name_of: NameOf) -> None:
    """Rules that make sessions: each by itself, and their names."""
    for table in ("variable", "capture", "set", "check"):
        for index, rule in enumerate(getattr(scenario, table)):
            if (found := rule.problem()) is not None:
                raise _rule_error(name_of, f"{table}[{index}]", found)
            header = getattr(rule, "header", None)
            if table == "set" and header is not None:
                _check_header(header, f"{table}[{index}].header", name_of)
    links = {rule.name for rule in scenario.capture if rule.as_ == "path"}
    named = captures_problem(scenario.capture) or names_problem(
        {rule.name for rule in scenario.capture}, scenario.variable, scenario.set, links
    )
    if named is not None:
        raise _rule_error(name_of, *named)
    _check_cookies(scenario, name_of)
    auth = scenario.auth
    _check_header(auth.header, "auth.header", name_of)
    if auth.command and auth.header.lower() in {name.lower() for name in scenario.headers}:
        raise UsageError(
            f"{name_of('auth.header')}: {auth.header} is among [headers] as well",
            hint="take it out there",
        )


def _check_cookies(scenario: Scenario, name_of: NameOf) -> None:
    """Where a jar is kept nothing else says which cookies are sent."""
    if not scenario.cookies:
        return
    given = [f"headers.{name}" for name in scenario.headers if name.lower() == "cookie"]
    given += ["send_headers"] if "cookie" in scenario.send_headers else []
    given += [
        f"set[{i}].header" for i, rule in enumerate(scenario.set) if (rule.header or "").lower() == "cookie"
    ]
    if given:
        raise UsageError(
            f"{name_of(given[0])}: Cookie is given, and cookies = true sends what the answers set",
            hint="take one of them out",
        )


def _rule_error(name_of: NameOf, table: str, problem: Problem) -> UsageError:
    return UsageError(f"{name_of(f'{table}.{problem.key}')}: {problem.why}", hint=problem.hint)


def _check_header(name: str, key: str, name_of: NameOf) -> None:
    try:
        check_header_name(name)
    except UsageError as error:
        raise UsageError(f"{name_of(key)}: {error}", hint=error.hint) from None


def _check_clients(scenario: Scenario, name_of: NameOf) -> None:
    """What recorded clients can have, and what has none."""
    if scenario.by_client and scenario.closed_loop:
        given = {
            "order": scenario.order == "client",
            "capture": scenario.capture,
            "cookies": scenario.cookies,
        }
        key = next((key for key, is_given in given.items() if is_given), "connect")
        raise UsageError(
            f"{name_of(key)}: a closed loop has no recorded clients: its connections ask, one after another",
            hint=f"give a rate that is not max, or leave out {key}",
        )
    if scenario.target.lower().startswith("kafka:"):
        if scenario.order == "client":
            raise UsageError(
                f"{name_of('order')}: a Kafka target has no answers to wait for; its records keep the order of"
                " their partition",
                hint="leave out order",
            )
        for key in ("capture", "check", "cookies"):
            if getattr(scenario, key):
                raise UsageError(
                    f"{name_of(key)}: a Kafka target answers with nothing to look at",
                    hint=f"leave out {key}",
                )
        if scenario.connect != "pool":
            raise UsageError(
                f"{name_of('connect')}: to Kafka a producer has one connection a broker, whoever asks",
                hint="leave out connect",
            )


def _check_records(scenario: Scenario, name_of: NameOf) -> None:
    """What records have, and what only requests have."""
    keys = [(scenario.kafka.key, "kafka.key")]
    keys += [(also.key, f"also[{index}].key") for index, also in enumerate(scenario.also) if also.key]
    for text, key in keys:
        for match in _BRACES.finditer(text):
            if not _OF_RECORDS.fullmatch(match[1]):
                raise UsageError(
                    f"{name_of(key)}: nothing is named {match[1]!r}",
                    hint="write {client} {method} {path} {path[1]} {n} {at_ms} {uuid} {email}",
                )
    if not scenario.target.lower().startswith("kafka:") or scenario.also:
        return
    given = {f"headers.{name}": True for name in scenario.headers}
    given |= {key: bool(getattr(scenario, key)) for key in OF_REQUESTS}
    for key in (key for key, is_given in given.items() if is_given):
        raise UsageError(
            f"{name_of(key)}: a record has the headers that it was recorded with, and no others",
            hint=f"leave out {key.partition('.')[0]}",
        )


def _check_headers_once(scenario: Scenario, name_of: NameOf) -> None:
    """No header is given in two ways: recorded, by a rule, and with the client's address."""
    for index, rule in enumerate(scenario.set):
        if rule.header is not None and rule.header.lower() in scenario.send_headers:
            where = name_of(f"set[{index}].header")
            raise UsageError(f"{where}: {rule.header} is among send_headers as well", hint="give it once")
    name = scenario.client_ip_header
    if not name:
        return
    where = name_of("client_ip_header")
    try:
        check_header_name(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}", hint="write X-Forwarded-For") from None
    given = {header.lower() for header in scenario.headers} | set(scenario.send_headers)
    given |= {rule.header.lower() for rule in scenario.set if rule.header is not None}
    if name.lower() in given:
        raise UsageError(
            f"{where}: {name} is among headers, set or send_headers as well", hint="give it once"
        )


def _check_retry(scenario: Scenario, name_of: NameOf) -> None:
    """What is tried again has to be something that can happen."""
    for index, name in enumerate(scenario.retry.on):
        if not statuses_of(name) and name not in FAILURES:
            raise UsageError(
                f"{name_of(f'retry.on[{index}]')}: {name!r} is no status and no outcome",
                hint=f"write a status from 200 to 599, 4xx, 5xx, or {', '.join(FAILURES)}",
            )
    if scenario.retry.attempts > 1 and scenario.target.lower().startswith("kafka:"):
        raise UsageError(
            f"{name_of('retry.attempts')}: a Kafka producer tries again by itself", hint="leave out retry"
        )
