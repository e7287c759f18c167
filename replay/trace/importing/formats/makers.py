"""JSON logs of vendors whose keys are always the same, one row of MAKERS each.

The meaning of the timestamps, according to the vendors' own documentation:

- Google Cloud load balancing: `timestamp` of the log entry. The documentation does not define the moment; Cloud Run's
  and App Engine's request logs, which share `httpRequest`, log the start. `receiveTimestamp` is later by the latency.
- Cloudflare Logpush (developers.cloudflare.com, http_requests): EdgeStartTimestamp, "when the edge received request
  from the client"; in ns, s or RFC 3339.
- Azure Front Door (learn.microsoft.com, monitor logs): `time` is when the edge delivered the contents to the client.
  `timeTaken` is in s, from the first byte received to the last one sent.
- Azure Application Gateway v2: its nginx writes when a request ends; `timeTaken` is in s.
- Elastic Common Schema: `event.start`, `event.end`, and `event.duration` in ns; `@timestamp` is when the source wrote
  the entry, and is taken as the end.
- Kong (http-log, file-log): `started_at` and `latencies.request` are in ms.
- pino-http: `time` (ms) is when "request completed" was logged; `responseTime` is in ms.
- Amazon API Gateway ($context variables): `requestTimeEpoch` (ms) and `requestTime` are the arrival of the request.
  `responseLatency` is in ms. A log with `resourcePath` alone has templates instead of paths, and is not accepted.
- Envoy Gateway: `start_time`; `duration` is in ms.
- CloudFront standard logging v2 has the fields of its tab separated logs: `date` and `time` in UTC are the end, and
  `time-taken` is in s.
- Caddy's console encoding is its JSON without `ts`, after timestamp, level, logger and message.
- k6 (`--out json=FILE`, grafana.com/docs/k6, results output): a point's time is when the response was complete
  (lib/netext/httpext: `Time: tr.EndTime`). `http_req_duration` in ms begins with the sending of the request.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from replay.trace.importing.readers.json_objects import objects, paths_of
from replay.trace.importing.readers.layout import UNITS_NS, Layout
from replay.trace.importing.readers.lines import sniffed_lines
from replay.trace.importing.readers.rewritten import RewritingReader
from replay.trace.importing.readers.templates import first_named
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    importer,
)
from replay.trace.importing.rejects import MEASUREMENT
from replay.trace.manifest import Stamp
from replay_native.importing import field_spec

_AT, _MORE, _TOOK, _CLIENT = field_spec.AT, field_spec.AT_MORE, field_spec.TOOK, field_spec.CLIENT_NAME
_METHOD, _TARGET, _QUERY, _HOST = field_spec.METHOD_NAME, field_spec.TARGET, field_spec.QUERY, field_spec.HOST
_FORWARDED = field_spec.FORWARDED
_STATUS, _SIZE, _AGENT = field_spec.STATUS_CODE, field_spec.SIZE, field_spec.AGENT


@dataclass(frozen=True, slots=True)
class Maker:
    """A vendor's JSON format.

    An object matches if it has all keys in `needs` (`a|b`: one of them). `stamps` maps the keys of timestamps to
    their meaning, the best first. `keys` maps other keys to roles, the best key of a role first. `whole` lists keys
    of targets that include the query. `rewrite` is a pattern and its replacement, which convert lines to JSON. Lines
    that match `not_requests` are blanked, and counted under the reason `others`. With `utc`, timestamps without a zone
    are in UTC. `took_unit_ns` is the unit of a duration without one.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    stamps: Mapping[str, Stamp]
    keys: Mapping[str, int]
    took_unit_ns: int = UNITS_NS["ms"]
    whole: frozenset[str] = frozenset()
    rewrite: tuple[re.Pattern[bytes], bytes] | None = None
    not_requests: re.Pattern[bytes] | None = None
    others: str = ""
    utc: bool = False

    def fits(self, names: Iterable[str]) -> bool:
        """Return whether an object with these keys matches this format."""
        has = set(names)
        return all(not has.isdisjoint(need.split("|")) for need in self.needs)

    def layout(self, names: list[str]) -> Layout:
        """Return the layout for objects with these keys."""
        known = dict.fromkeys(self.stamps, _AT) | dict(self.keys)
        roles = first_named(known, names)
        keys = {name: role for name, role in zip(names, roles, strict=True) if role >= 0} or known
        if self.whole & keys.keys():
            keys = {name: role for name, role in keys.items() if role != _QUERY}
        means: Stamp = next(
            (self.stamps[name] for name, role in keys.items() if role == _AT and name in self.stamps), "start"
        )
        return Layout(
            stamp=means,
            subtracts=means == "end" and _TOOK in keys.values(),
            keys=keys,
            escapes=field_spec.JSON_ESCAPES,
            took_unit_ns=self.took_unit_ns,
        )


_CADDY_KEYS = {
    "request.method": _METHOD, "request.uri": _TARGET, "request.host": _HOST, "request.client_ip": _CLIENT,
    "request.remote_ip": _CLIENT, "request.remote_addr": _CLIENT, "request.headers.X-Forwarded-For": _FORWARDED,
    "request.headers.User-Agent": _AGENT,
    "status": _STATUS, "size": _SIZE, "duration": _TOOK,
}  # fmt: skip

MAKERS = (
    Maker(
        "gcp-lb", "a request log of Google Cloud (load balancer)",
        ("timestamp", "httpRequest.requestMethod", "httpRequest.requestUrl"),
        {"timestamp": "start"},
        {
            "httpRequest.requestMethod": _METHOD, "httpRequest.requestUrl": _TARGET, "httpRequest.status": _STATUS,
            "httpRequest.responseSize": _SIZE, "httpRequest.latency": _TOOK, "httpRequest.remoteIp": _CLIENT,
            "httpRequest.userAgent": _AGENT,
        },
        UNITS_NS["s"],
    ),
    Maker(
        "cloudflare", "an HTTP request log of Cloudflare (Logpush)",
        ("EdgeStartTimestamp|EdgeEndTimestamp", "ClientRequestMethod", "ClientRequestURI|ClientRequestPath"),
        {"EdgeStartTimestamp": "start", "EdgeEndTimestamp": "end"},
        {
            "ClientRequestMethod": _METHOD, "ClientRequestURI": _TARGET, "ClientRequestPath": _TARGET,
            "ClientRequestHost": _HOST, "ClientIP": _CLIENT, "EdgeResponseStatus": _STATUS,
            "EdgeResponseBytes": _SIZE, "ClientRequestUserAgent": _AGENT,
        },
    ),
    Maker(
        "azure-front-door", "an access log of Azure Front Door",
        ("time", "properties.httpMethod", "properties.requestUri", "properties.httpStatusCode"),
        {"time": "end"},
        {
            "properties.httpMethod": _METHOD, "properties.requestUri": _TARGET, "properties.httpStatusCode": _STATUS,
            "properties.responseBytes": _SIZE, "properties.timeTaken": _TOOK, "properties.clientIp": _CLIENT,
            "properties.userAgent": _AGENT,
        },
        UNITS_NS["s"],
    ),
    Maker(
        "azure-app-gateway", "an access log of Azure Application Gateway",
        ("timeStamp", "properties.httpMethod", "properties.requestUri|properties.originalRequestUriWithArgs"),
        {"timeStamp": "end"},
        {
            "properties.httpMethod": _METHOD, "properties.originalRequestUriWithArgs": _TARGET,
            "properties.requestUri": _TARGET, "properties.requestQuery": _QUERY, "properties.originalHost": _HOST,
            "properties.host": _HOST, "properties.httpStatus": _STATUS, "properties.sentBytes": _SIZE,
            "properties.timeTaken": _TOOK, "properties.clientIP": _CLIENT, "properties.userAgent": _AGENT,
        },
        UNITS_NS["s"],
        frozenset({"properties.originalRequestUriWithArgs"}),
    ),
    Maker(
        "ecs", "a log in the Elastic Common Schema (JSON)",
        ("@timestamp", "http.request.method", "url.original|url.path|url.full"),
        {"event.start": "start", "event.end": "end", "@timestamp": "end"},
        {
            "http.request.method": _METHOD, "url.original": _TARGET, "url.full": _TARGET, "url.path": _TARGET,
            "url.query": _QUERY, "url.domain": _HOST, "http.response.status_code": _STATUS,
            "http.response.body.bytes": _SIZE, "http.response.bytes": _SIZE, "event.duration": _TOOK,
            "client.ip": _CLIENT, "source.ip": _CLIENT, "client.address": _CLIENT, "source.address": _CLIENT,
            "user_agent.original": _AGENT,
        },
        UNITS_NS["ns"],
        frozenset({"url.original", "url.full"}),
    ),
    Maker(
        "kong", "a log of Kong (http-log, file-log)",
        ("started_at", "request.method", "request.uri|request.url", "latencies"),
        {"started_at": "start"},
        {
            "request.method": _METHOD, "request.uri": _TARGET, "request.url": _TARGET, "request.headers.host": _HOST,
            "response.status": _STATUS, "response.size": _SIZE, "latencies.request": _TOOK, "client_ip": _CLIENT,
            "request.headers.x-forwarded-for": _FORWARDED, "request.headers.user-agent": _AGENT,
        },
    ),
    Maker(
        "pino", "a log of pino-http",
        ("time", "req.method", "req.url", "res.statusCode"),
        {"time": "end"},
        {
            "req.method": _METHOD, "req.url": _TARGET, "req.headers.host": _HOST, "res.statusCode": _STATUS,
            "res.headers.content-length": _SIZE, "responseTime": _TOOK, "req.remoteAddress": _CLIENT,
            "req.headers.x-forwarded-for": _FORWARDED, "req.headers.user-agent": _AGENT,
        },
    ),
    Maker(
        "api-gateway", "an access log of Amazon API Gateway",
        ("requestTime|requestTimeEpoch", "httpMethod", "path", "status"),
        {"requestTimeEpoch": "start", "requestTime": "start"},
        {
            "httpMethod": _METHOD, "path": _TARGET, "domainName": _HOST, "status": _STATUS, "responseLength": _SIZE,
            "responseLatency": _TOOK, "ip": _CLIENT, "sourceIp": _CLIENT, "userAgent": _AGENT,
        },
    ),
    Maker(
        "envoy-gateway", "an access log of Envoy Gateway",
        ("start_time", "method", "x-envoy-origin-path", "response_code"),
        {"start_time": "start"},
        {
            "method": _METHOD, "x-envoy-origin-path": _TARGET, ":authority": _HOST, "response_code": _STATUS,
            "bytes_sent": _SIZE, "duration": _TOOK, "x-forwarded-for": _FORWARDED, "downstream_remote_address": _CLIENT,
            "user-agent": _AGENT,
        },
    ),
    Maker(
        "cloudfront-json", "an access log of CloudFront (standard logging v2, JSON)",
        ("date", "time", "cs-method", "cs-uri-stem"),
        {"date": "end"},
        {
            "time": _MORE, "cs-method": _METHOD, "cs-uri-stem": _TARGET, "cs-uri-query": _QUERY,
            "x-host-header": _HOST, "cs(Host)": _HOST, "sc-status": _STATUS, "sc-bytes": _SIZE, "time-taken": _TOOK,
            "c-ip": _CLIENT, "cs(User-Agent)": _AGENT,
        },
        UNITS_NS["s"],
        utc=True,
    ),
    Maker(
        "caddy-console", "Caddy's access log (console)",
        ("ts", "request.method", "request.uri"),
        {"ts": "end"},
        _CADDY_KEYS,
        UNITS_NS["s"],
        rewrite=(
            re.compile(rb"^([\d/: .TZe+-]{10,40})\t[^\t\n]{2,20}\t[^\t\n]+\thandled request\t\{", re.MULTILINE),
            rb'{"ts":"\1",',
        ),
    ),
    Maker(
        "k6", "results of k6 (JSON)",
        ("metric", "data.time", "data.value", "data.tags.url"),
        {"data.time": "end"},
        {
            "data.tags.method": _METHOD, "data.tags.url": _TARGET, "data.tags.status": _STATUS, "data.value": _TOOK,
            "data.tags.vu": _CLIENT,
        },
        not_requests=re.compile(
            rb'^(?![^\n]*"metric" ?: ?"http_req_duration")[^\n]+|^[^\n]*"type" ?: ?"Metric"[^\n]*', re.MULTILINE
        ),
        others=MEASUREMENT,
    ),
)  # fmt: skip


class MakerReader(RewritingReader):
    """Reads a vendor's JSON.

    If several keys have one role, the first of them that the head of the file has is used.
    """

    def __init__(self, found: Found, options: Options, maker: Maker) -> None:
        self._maker, self.blank_reason, self.zone_known = maker, maker.others, maker.utc
        options = replace(options, time_zone="UTC") if maker.utc else options
        super().__init__(found, options, maker.layout([]))

    def rewrite(self, data: bytes) -> bytes:
        """Convert the lines to JSON if the vendor writes another form, and blank the lines that are not requests."""
        if self._maker.not_requests is not None:
            data, blanked = self._maker.not_requests.subn(b"", data)
            self.blanked += blanked
        return rewritten(self._maker, data)

    def probe(self, head: bytes) -> Probe:
        """Choose the keys that the head has, then return its first timestamp and the resolution."""
        layout = self._maker.layout(paths_of(self.rewrite(head)))
        self.use(replace(layout, at_unit_ns=self.layout.at_unit_ns))
        return super().probe(head)


def rewritten(maker: Maker, data: bytes) -> bytes:
    """Convert a vendor's lines to JSON objects, if they are not JSON already."""
    return data if maker.rewrite is None else maker.rewrite[0].sub(maker.rewrite[1], data)


@functools.lru_cache(maxsize=2)
def _paths_by_line(head: bytes) -> tuple[tuple[str, ...], ...]:
    """Return the keys of each of the first objects, cached because every format needs them."""
    return tuple(tuple(paths_of_one(value)) for value in objects(head))


def paths_of_one(value: dict[str, object]) -> Iterable[str]:
    """Yield the keys of an object and of the objects nested in it.

    A nested key is written `request.method`. Keys of more than five parts are left out.
    """
    pending = [("", value)]
    while pending:
        prefix, inside = pending.pop()
        for name, inner in inside.items():
            yield prefix + name
            if isinstance(inner, dict) and prefix.count(".") < 4:
                pending.append((f"{prefix}{name}.", inner))


def _register(maker: Maker) -> Importer:
    def sniff(head: bytes, options: Options) -> float:
        if options.columns:
            return 0.0
        lines = sniffed_lines(head)
        if maker.rewrite is not None:
            head = rewritten(maker, head) if maker.rewrite[0].search(head) else b""
        elif maker.not_requests is not None:
            lines = sniffed_lines(maker.not_requests.sub(b"", head)) or lines
        fitting = sum(maker.fits(paths) for paths in _paths_by_line(head))
        return min(fitting / max(len(lines), 1), 1.0)

    def reader(found: Found, options: Options) -> MakerReader:
        return MakerReader(found, options, maker)

    return importer(Importer(name=maker.name, title=maker.title, sniff=sniff, reader=reader, rank=2))


IMPORTERS = tuple(map(_register, MAKERS))
