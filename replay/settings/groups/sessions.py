"""Settings about values that pass between requests of a client, such as captures and cookies."""

from typing import Annotated, ClassVar

from replay.errors import UsageError

from ..headers import OF_TRACE_CONTEXT
from ..naming import NameOf
from ..row import row
from ..session_rules import (
    Auth,
    CaptureRule,
    CheckRule,
    Problem,
    SetRule,
    Variable,
    captures_problem,
    names_problem,
)
from .target import TargetSettings, check_header


class SessionSettings(TargetSettings, kw_only=True, frozen=True):
    """Values that pass between requests of a client."""

    group: ClassVar[str] = "sessions"

    variable: Annotated[
        tuple[Variable, ...], row("Values from a CSV file, a generator or the environment", used_by="HTTP")
    ] = ()
    capture: Annotated[
        tuple[CaptureRule, ...],
        row("Values taken from responses, for later requests of the same client", used_by="HTTP"),
    ] = ()
    set: Annotated[
        tuple[SetRule, ...], row("Paths, headers and fields of requests, set from values", used_by="HTTP")
    ] = ()
    check: Annotated[
        tuple[CheckRule, ...],
        row(
            "Conditions that responses must meet; a response that does not counts as a mismatch",
            used_by="HTTP",
        ),
    ] = ()
    cookies: Annotated[
        bool, row("Keep the cookies that responses set, for each client, and send them", used_by="HTTP")
    ] = False
    split_clients: Annotated[
        bool,
        row(
            "Treat each session of a recorded client as a separate client; captures, variables and cookies distinguish"
            " sessions",
            used_by="HTTP",
        ),
    ] = False
    auth: Annotated[Auth, row("A header whose value a command prints", used_by="HTTP")] = Auth()


def check(settings: SessionSettings, name_of: NameOf) -> None:
    """Raise UsageError for an invalid rule, a name that no rule defines, and a header that is set in two ways."""
    for table in ("variable", "capture", "set", "check"):
        for index, rule in enumerate(getattr(settings, table)):
            if (found := rule.problem()) is not None:
                raise _rule_error(name_of, f"{table}[{index}]", found)
            header = getattr(rule, "header", None)
            if table == "set" and header is not None:
                check_header(header, f"{table}[{index}].header", name_of)
    links = {rule.name for rule in settings.capture if rule.as_ == "path"}
    named = captures_problem(settings.capture) or names_problem(
        {rule.name for rule in settings.capture}, settings.variable, settings.set, links
    )
    if named is not None:
        raise _rule_error(name_of, *named)
    _check_headers_once(settings, name_of)
    _check_trace_context(settings, name_of)
    _check_cookies(settings, name_of)
    _check_auth(settings, name_of)


def _check_headers_once(settings: SessionSettings, name_of: NameOf) -> None:
    """Raise UsageError if a rule sets a header that `send_headers` lists, or the header with the client's address."""
    for index, rule in enumerate(settings.set):
        if rule.header is None:
            continue
        where = name_of(f"set[{index}].header")
        if rule.header.lower() in settings.send_headers:
            raise UsageError(f"{where}: {rule.header} is also among send_headers", hint="give it once")
        if rule.header.lower() == settings.client_ip_header.lower():
            raise UsageError(
                f"{name_of('client_ip_header')}: {settings.client_ip_header} is also set by a [[set]] rule",
                hint="give it once",
            )


def _check_trace_context(settings: SessionSettings, name_of: NameOf) -> None:
    """Raise UsageError if `traceparent` is on and a rule or `auth` sets a header of the trace context."""
    if not settings.traceparent:
        return
    given = {f"set[{index}].header": rule.header or "" for index, rule in enumerate(settings.set)}
    if settings.auth.command:
        given["auth.header"] = settings.auth.header
    for key, name in given.items():
        if name.lower() in OF_TRACE_CONTEXT:
            raise UsageError(
                f"{name_of(key)}: the setting traceparent already adds a trace context to each request",
                hint=f"leave out this {name}, or --traceparent",
            )


def _check_cookies(settings: SessionSettings, name_of: NameOf) -> None:
    """Raise UsageError if `cookies` is on, and `headers`, `send_headers` or a rule sends Cookie, too."""
    if not settings.cookies:
        return
    given = [f"headers.{name}" for name in settings.headers if name.lower() == "cookie"]
    given += ["send_headers"] if "cookie" in settings.send_headers else []
    given += [
        f"set[{index}].header"
        for index, rule in enumerate(settings.set)
        if (rule.header or "").lower() == "cookie"
    ]
    if given:
        raise UsageError(
            f"{name_of(given[0])}: Cookie is given, although cookies = true sends the cookies that responses set",
            hint="remove one of them",
        )


def _check_auth(settings: SessionSettings, name_of: NameOf) -> None:
    """Raise UsageError if the header of `auth` is not a header's name, or if another setting sends it, too."""
    auth = settings.auth
    check_header(auth.header, "auth.header", name_of)
    name = auth.header.lower()
    sent_by = {
        "in [headers]": name in {header.lower() for header in settings.headers},
        "in send_headers": name in settings.send_headers,
        "by client_ip_header": name == settings.client_ip_header.lower(),
        "by a [[set]] rule": name in {(rule.header or "").lower() for rule in settings.set},
        "by cookies = true": settings.cookies and name == "cookie",
    }
    for words, is_sent in sent_by.items():
        if auth.command and is_sent:
            raise UsageError(
                f"{name_of('auth.header')}: {auth.header} is also given {words}", hint="give it once"
            )


def _rule_error(name_of: NameOf, table: str, problem: Problem) -> UsageError:
    return UsageError(f"{name_of(f'{table}.{problem.key}')}: {problem.why}", hint=problem.hint)
