"""Settings about the address that requests are sent to, and about their headers."""

from typing import Annotated, ClassVar, Literal

import msgspec

from replay.errors import UsageError

from ..headers import OF_TRACE_CONTEXT, check_header_name
from ..kinds import HeaderNames, HostNames, Methods
from ..naming import NameOf
from ..row import Table, row
from ..target import sendable
from ..trace_url import url_problem


class Also(Table, kw_only=True, frozen=True):
    """Further targets on the same timeline, in the same run.

    Without `only` and `without`, a target receives all routes of the recording. The defaults of `methods`, `key` and
    `value` are the scenario's settings.
    """

    target: Annotated[str, row("Further target: http://... or kafka://...", metavar="URL")]
    only: Annotated[
        tuple[str, ...],
        row("Routes that this target receives", metavar="ROUTE", default="all of the recording"),
    ] = ()
    without: Annotated[tuple[str, ...], row("Routes that this target does not receive", metavar="ROUTE")] = ()
    methods: Annotated[
        Methods | None,
        row(
            "Methods that this target receives; for Kafka only those that write make sense",
            default="the scenario's",
        ),
    ] = None
    key: Annotated[
        str | None, row("Key of the record for a request", used_by="Kafka", default="the scenario's")
    ] = None
    value: Annotated[
        str | None, row("Value of the record for a request", used_by="Kafka", default="the scenario's")
    ] = None


class TargetSettings(Table, kw_only=True, frozen=True):
    """The address that requests are sent to, and their headers."""

    group: ClassVar[str] = "target"

    target: Annotated[
        str,
        row(
            "Where to send: http[s]://HOST[:PORT][/BASE/PATH] or kafka://HOST:PORT/TOPIC",
            "--target",
            metavar="URL",
            common=True,
        ),
    ] = ""
    trace: Annotated[str, row("Trace or log to replay, relative to this scenario", common=True)] = ""
    host: Annotated[
        str,
        row(
            "Host header",
            "--host",
            metavar="NAME",
            default="the target's",
            used_by="HTTP",
            example="staging.example",
        ),
    ] = ""
    headers: Annotated[
        dict[str, str],
        row(
            "Header to add to every request; $NAME comes from the environment",
            "-H",
            "--header",
            metavar="'NAME: VALUE'",
            used_by="HTTP",
            common=True,
        ),
    ] = msgspec.field(default_factory=dict)
    send_headers: Annotated[
        HeaderNames,
        row(
            "Recorded headers to send again: user-agent,accept; or all, without those that identify client or host",
            "--send-headers",
            default="none",
            used_by="HTTP",
            example="user-agent,accept",
        ),
    ] = HeaderNames()
    rewrite_host: Annotated[
        HostNames,
        row(
            "Send a recorded host under another name, in Host and in URLs of the headers that are sent",
            "--rewrite-host",
            used_by="HTTP",
            example=["www.example=staging.example", "*.shop.example=*.shop.staging.example"],
        ),
    ] = HostNames()
    client_ip_header: Annotated[
        str,
        row(
            "Header to send with an address for each recorded client, always the same for a client",
            "--client-ip-header",
            metavar="NAME",
            default="none",
            used_by="HTTP",
            example="X-Forwarded-For",
        ),
    ] = ""
    client_ip_range: Annotated[
        Literal["10.0.0.0/8", "198.18.0.0/15", "2001:db8::/32"],
        row(
            "Network of the addresses in client_ip_header",
            "--client-ip-range",
            metavar="NETWORK",
            used_by="HTTP",
        ),
    ] = "10.0.0.0/8"
    x_replay: Annotated[
        bool,
        row(
            "Send X-Replay: RUN-SEQ, which identifies each request in the target's logs",
            "--no-x-replay",
            used_by="HTTP",
        ),
    ] = True
    traceparent: Annotated[
        bool,
        row(
            "Send a W3C trace context with every request; reports list the traces of slow and failed requests",
            "--traceparent",
            used_by="HTTP and Kafka",
        ),
    ] = False
    trace_url: Annotated[
        str,
        row(
            "URL of a trace's page, to which reports link; {trace_id} is replaced by the trace's id",
            "--trace-url",
            metavar="URL",
            default="none",
            used_by="traceparent",
            example="https://tracing.example/trace/{trace_id}",
        ),
    ] = ""
    resolve: Annotated[
        Literal["ttl", "once", "per-connection"],
        row(
            "When to resolve the target's name again: when its TTL expires, never, or for each connection",
            "--resolve",
            used_by="HTTP",
        ),
    ] = "ttl"
    resolver: Annotated[
        str,
        row(
            "Name server to ask",
            "--resolver",
            metavar="ADDRESS[:PORT]",
            default="those of resolv.conf",
            used_by="HTTP",
            example="127.0.0.1:5353",
        ),
    ] = ""
    also: Annotated[tuple[Also, ...], row("Further targets")] = ()


def check(settings: TargetSettings, name_of: NameOf) -> None:
    """Raise UsageError for an invalid header, host, resolver or `trace_url`, and for a header that is set twice."""
    for name in settings.headers:
        check_header(name, f"headers.{name}", name_of)
    if settings.trace_url and (problem := url_problem(settings.trace_url)):
        raise UsageError(
            f"{name_of('trace_url')}: {problem}", hint="write https://HOST/PATH with {trace_id} in it"
        )
    if settings.traceparent:
        _check_own_trace(settings, name_of)
    if settings.host and not sendable(settings.host):
        raise UsageError(
            f"{name_of('host')}: {settings.host!r} is not a host", hint="write NAME or NAME:PORT"
        )
    if settings.resolver:
        _check_resolver(settings.resolver, name_of)
    if settings.client_ip_header:
        _check_client_ip_header(settings, name_of)


def _check_own_trace(settings: TargetSettings, name_of: NameOf) -> None:
    """Raise UsageError if a header of the trace context is also set in another way."""
    for name in settings.headers:
        if name.lower() in OF_TRACE_CONTEXT:
            raise UsageError(
                f"{name_of(f'headers.{name}')}: the setting traceparent already adds a trace context to each request",
                hint=f"leave out {name}, or --traceparent",
            )
    if settings.client_ip_header.lower() in OF_TRACE_CONTEXT:
        raise UsageError(
            f"{name_of('client_ip_header')}: traceparent sets {settings.client_ip_header} itself",
            hint="choose another header, or leave out --traceparent",
        )


def _check_resolver(resolver: str, name_of: NameOf) -> None:
    from replay.names.settings import parse_server  # Imported here, because replay.names imports Numba.

    try:
        parse_server(resolver)
    except UsageError as error:
        raise UsageError(f"{name_of('resolver')}: {error}", hint=error.hint) from None


def _check_client_ip_header(settings: TargetSettings, name_of: NameOf) -> None:
    name, where = settings.client_ip_header, name_of("client_ip_header")
    try:
        check_header_name(name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}", hint="give another header, such as X-Forwarded-For") from None
    if name.lower() in {header.lower() for header in settings.headers} | set(settings.send_headers):
        raise UsageError(f"{where}: {name} is also among headers or send_headers", hint="give it once")


def check_header(name: str, key: str, name_of: NameOf) -> None:
    """Raise UsageError if a header of this name cannot be set. `key` is the setting that uses it."""
    try:
        check_header_name(name)
    except UsageError as error:
        raise UsageError(f"{name_of(key)}: {error}", hint=error.hint) from None
