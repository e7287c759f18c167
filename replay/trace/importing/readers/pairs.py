"""Reads lines of pairs: logfmt (Heroku's router, Rails' lograge, Go services) and LTSV.

- logfmt is `key=value` with spaces between pairs and quotes around values that contain spaces. Text before the first
  pair (a level, a logger's name, a timestamp) is not a pair; an ISO timestamp in it is available as `prefix`.
- Heroku's router (devcenter.heroku.com/articles/http-routing#heroku-router-log-format) writes its line when a request
  ends. `service` is the time from the request to the dyno until the end of its response. Lines with at=error have a
  status, too.
- lograge (github.com/roidrage/lograge) writes its line when a request ends. `duration` is a number of milliseconds.
- Other loggers also write when a request ends (Go's log/slog, github.com/go-kit/log, logrus): a timestamp counts as
  the end unless its key names the start. Durations are as Go writes them (`12.5ms`); a number without a unit is in
  ms.
- LTSV (ltsv.org) is `label:value` with tabs. `reqtime` is nginx's $request_time, so `time` is the end.
  `reqtime_microsec` is Apache's %D, and then `time` is the start. Without either, the meaning of `time` is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    Probe,
    importer,
)
from replay_native.importing import field_spec

from .columns import layout_of, role_number
from .layout import UNITS_NS, Layout
from .lines import sniffed_lines
from .rewritten import RewritingReader
from .usual_names import USUAL_NAMES

PREFIX = "prefix"

_ISO = rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?"
_KEY = rb"[A-Za-z_@][\w.@-]*"
_STAMPED = re.compile(
    rb"^(?!"
    + _KEY
    + rb"=)(?:<\d{1,3}>\d? ?)?[^\n=\"0-9]*("
    + _ISO
    + rb")(?:[^\s=\"]*[ \t]+)+?(?="
    + _KEY
    + rb"=)",
    re.MULTILINE,
)
_PAIR = re.compile(rb"(?:^|(?<= ))(" + _KEY + rb')=("(?:[^"\\]|\\.)*"|[^ "]*)(?= |$)')

_LOGGED = ("time", "ts", "timestamp", "@timestamp", "t", "datetime", PREFIX)
_STARTED = ("start_time", "started", "started_at", "start")

_USUAL = {
    role: names
    for role, names in USUAL_NAMES.items()
    if role not in ("at", "end", "at_ms", "at_us", "at_ns")
} | {
    "at": _STARTED,
    "end": (*_LOGGED, *USUAL_NAMES["end"]),
    "path": ("path", "uri", "url", "request_uri", "request_path", "http.path", "http.target", "url.path", "target"),
    "method": ("method", "http_method", "request_method", "http.method", "verb"),
    "host": ("host", "http_host", "authority"),
    "client": ("fwd", "client", "client_ip", "remote_addr", "remote_ip", "remote", "ip", "addr", "peer"),
    "status": ("status", "status_code", "code", "http.status_code", "response_code", "http_status", "resp_status"),
    "bytes": ("bytes", "size", "bytes_written", "resp_bytes", "bytes_sent", "response_size", "length"),
    "took_ms": ("duration", "took_ms", "duration_ms", "latency_ms", "elapsed_ms", "latency", "elapsed", "took", "dur"),
}  # fmt: skip
"""Keys of logfmt by role, which are found without configuration."""

_LTSV = {
    "time": field_spec.AT, "host": field_spec.CLIENT_NAME, "req": field_spec.REQUEST, "method": field_spec.METHOD_NAME,
    "uri": field_spec.TARGET, "status": field_spec.STATUS_CODE, "size": field_spec.SIZE, "vhost": field_spec.HOST,
    "ua": field_spec.AGENT, "reqtime": field_spec.TOOK, "reqtime_microsec": field_spec.TOOK,
}  # fmt: skip
"""The labels that ltsv.org recommends."""


def _names(lines: Iterable[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for pairs in lines for name in pairs))


def _logfmt_pairs(line: bytes) -> dict[str, str]:
    """Return the pairs of a line that has only pairs from its first one on; otherwise none."""
    found = list(_PAIR.finditer(line))
    if not found:
        return {}
    rest = _PAIR.sub(b"", line[found[0].start() :])
    if rest.strip():
        return {}
    return {pair[1].decode("latin-1"): pair[2].decode("latin-1").strip('"') for pair in found}


def _ltsv_pairs(line: bytes) -> dict[str, str]:
    parts = [part.partition(b":") for part in line.split(b"\t")]
    if len(parts) < 3 or not all(sign and re.fullmatch(rb"[\w.-]+", label) for label, sign, _ in parts):
        return {}
    return {label.decode("latin-1"): value.decode("latin-1") for label, _, value in parts}


def rewrite_logfmt(data: bytes) -> bytes:
    """Add the timestamp before the pairs of a line as the pair `prefix`."""
    return _STAMPED.sub(rb'prefix="\1" ', data)


class PairsReader(RewritingReader):
    """Reads lines of pairs.

    The first lines determine the keys.
    """

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options, Layout(delimiter=" ", keys={PREFIX: field_spec.AT}))

    def rewrite(self, data: bytes) -> bytes:
        """Convert the timestamp before the pairs of each line to a pair."""
        return rewrite_logfmt(data)

    def probe(self, head: bytes) -> Probe:
        """Find the keys in the head, then return its first timestamp and the resolution.

        Raises InputError as `logfmt_layout` does.
        """
        self.use(logfmt_layout(rewrite_logfmt(head), self._options))
        return super().probe(head)


def logfmt_layout(head: bytes, options: Options) -> Layout:
    """Return the layout of a logfmt log from its first lines.

    Raises InputError if no key is a timestamp, or if a key of `--columns` does not exist or has two roles.
    """
    lines = [_logfmt_pairs(line) for line in sniffed_lines(head)]
    names = _names(line for line in lines if _is_request(line)) or _names(lines)
    layout, found = layout_of(options, names, "the file", _USUAL)
    keys = {names[index]: role_number(role) for role, index in found.items()}
    if {"connect", "service", "fwd"} <= set(names) and not options.columns:
        keys["service"] = field_spec.TOOK
        layout = replace(layout, subtracts=True, took_unit_ns=UNITS_NS["ms"])
    return replace(layout, delimiter=" ", keys=keys, escapes=field_spec.JSON_ESCAPES)


def _is_request(pairs: Mapping[str, str]) -> bool:
    """Return whether pairs include a method and a path."""
    return not pairs.keys().isdisjoint(_USUAL["method"]) and not pairs.keys().isdisjoint(_USUAL["path"])


def sniff_logfmt(head: bytes, options: Options) -> float:
    """Return the share of the first lines that are pairs; 0 if no line is a request, or with `--log-format`.

    A request has a timestamp, a method and a path, or, with `--columns`, one of the keys in it. The result is 0 if any
    request has fewer than three pairs.
    """
    if options.log_format:
        return 0.0
    lines = sniffed_lines(rewrite_logfmt(head))
    pairs = [_logfmt_pairs(line) for line in lines]
    wanted = {key for _, key in options.columns}
    requests = [
        each
        for each in pairs
        if (not wanted.isdisjoint(each) if wanted else _is_request(each) and _has_stamp(each))
    ]
    if not requests or sum(len(each) >= 3 for each in requests) < len(requests):
        return 0.0
    return sum(bool(each) for each in pairs) / len(lines)


def _has_stamp(pairs: Mapping[str, str]) -> bool:
    return not pairs.keys().isdisjoint((*_USUAL["at"], *_USUAL["end"]))


class LtsvReader(RewritingReader):
    """Reads LTSV.

    The first lines determine the labels.
    """

    def __init__(self, found: Found, options: Options) -> None:
        super().__init__(found, options, Layout(delimiter="\t", keys=_LTSV))

    def rewrite(self, data: bytes) -> bytes:
        """Return the lines unchanged."""
        return data

    def probe(self, head: bytes) -> Probe:
        """Find the labels in the head, then return its first timestamp and the resolution.

        Raises InputError as `ltsv_layout` does.
        """
        self.use(ltsv_layout(head, self._options))
        return super().probe(head)


def ltsv_layout(head: bytes, options: Options) -> Layout:
    """Return the layout of an LTSV log from its first lines.

    With `--columns`, raises InputError if no label is a timestamp, or if a label does not exist or has two roles.
    """
    names = _names(_ltsv_pairs(line) for line in sniffed_lines(head))
    if options.columns:
        layout, found = layout_of(options, names, "the file", {})
        keys = {names[index]: role_number(role) for role, index in found.items()}
    else:
        keys = {name: role for name, role in _LTSV.items() if name in names} or dict(_LTSV)
        method = "" if {"req", "method"} & set(names) else "GET"
        layout = Layout(stamp="unknown", method=method)
        if "reqtime_microsec" in names:
            keys.pop("reqtime", None)
            layout = replace(layout, stamp="start", took_unit_ns=UNITS_NS["us"])
        elif "reqtime" in names:
            layout = replace(layout, stamp="end", subtracts=True)
        if "req" in names:
            keys = {name: role for name, role in keys.items() if name not in ("method", "uri")}
    return replace(layout, delimiter="\t", keys=keys, escapes=field_spec.LOG)


def sniff_ltsv(head: bytes, options: Options) -> float:
    """Return the share of the first lines that have labels with values, including those of a time and a request.

    With `--columns`, one of the labels in it is enough.
    """
    lines = sniffed_lines(head)
    needed = {key for _, key in options.columns} or {"time"}
    asked = {"req", "uri"} if not options.columns else needed
    fits = [
        bool(pairs) and not needed.isdisjoint(pairs) and not asked.isdisjoint(pairs)
        for pairs in map(_ltsv_pairs, lines)
    ]
    return sum(fits) / max(len(fits), 1)


LOGFMT = importer(
    Importer(
        name="logfmt",
        takes_columns=True,
        title="logfmt (key=value)",
        sniff=sniff_logfmt,
        reader=PairsReader,
        rank=2,
    )
)
LTSV = importer(
    Importer(
        name="ltsv",
        takes_columns=True,
        title="LTSV (label:value)",
        sniff=sniff_ltsv,
        reader=LtsvReader,
        rank=2,
    )
)
