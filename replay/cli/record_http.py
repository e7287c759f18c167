"""`replay record http`: runs a recording proxy or a mirror receiver, and prints the summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replay import units
from replay.errors import ReplayError, UsageError, reason_of
from replay.recording.body_limits import LIMIT_BYTES_MAX, BodyLimits
from replay.recording.headers import HeaderList
from replay.recording.listening import parse_place
from replay.recording.session import Recorded, Recording, record
from replay.recording.upstream import Upstream, server_context
from replay.report.console import Console
from replay.trace.journal import journal_of

from .import_ import ProgressBar, changed_lines
from .scrub_options import scrubbing
from .streams import say, tell

ROUTES_SHOWN = 6


def parse_limits(texts: Sequence[str]) -> BodyLimits:
    """Parse the values of `--body-limit`: sizes, and routes with sizes (`POST /upload=0`).

    UsageError if a text is neither.
    """
    default, rules = BodyLimits().bytes_max, list[tuple[str, int]]()
    for text in texts:
        route, _, size = text.rpartition("=")
        try:
            bytes_max = 0 if size.strip() == "0" else units.parse_size_bytes(size)
        except UsageError as error:
            raise UsageError(
                f"--body-limit {text!r}: {error}", hint="write 1MiB, or 'POST /upload=0' for one route"
            ) from None
        if bytes_max > LIMIT_BYTES_MAX:
            raise UsageError(
                f"--body-limit {text!r}: the highest limit is {units.format_bytes(LIMIT_BYTES_MAX)}",
                hint="larger bodies are forwarded, and their requests are recorded without them",
            )
        if not route:
            default = bytes_max
            continue
        route = " ".join(route.split())
        if "/" not in route:
            raise UsageError(
                f"--body-limit {text!r}: {route!r} is not a route",
                hint="write 'POST /upload=0', or '/files/*=64KiB'",
            )
        rules.append((route if " " in route else f"* {route}", bytes_max))
    return BodyLimits(default, tuple(rules))


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """The options of `replay record http`, by the names of their parameters."""

    listen: str
    upstream: str | None
    upstream_ca: Path | None
    mirror: bool
    answer: int
    cert: Path | None
    key: Path | None
    record_headers: str
    body_limit: tuple[str, ...]
    keep_responses: bool
    keep_secrets: bool
    scrub: tuple[str, ...]
    scrub_key_file: Path | None

    def check(self) -> None:
        """Raise UsageError if options contradict each other, or if --record-headers is invalid."""
        if self.mirror == (self.upstream is not None):
            raise UsageError(
                "both --mirror and --upstream are given"
                if self.mirror
                else "neither --upstream nor --mirror is given",
                hint="--upstream http://127.0.0.1:9000 forwards requests; --mirror only receives them",
            )
        if self.mirror and self.keep_responses:
            raise UsageError("--keep-responses does not work with --mirror, which sees no responses")
        if self.mirror and self.upstream_ca is not None:
            raise UsageError("--upstream-ca does not work with --mirror, which forwards nothing")
        if self.key is not None and self.cert is None:
            raise UsageError("--key needs --cert", hint="give both")
        HeaderList.parse(self.record_headers)


def _recording(options: HttpOptions, out: Path, allow: tuple[str, ...], force: bool) -> Recording:
    from replay.plan.safety import allowed
    from replay.settings.file import load

    options.check()
    wanted = scrubbing(options.scrub, options.scrub_key_file, options.keep_secrets)
    upstream = None
    if options.upstream is not None:
        permitted = allowed(load(None, flags={"allow": list(allow)}))
        upstream = Upstream(options.upstream, permitted, options.upstream_ca)
        _refuse_loop(options, upstream)
    return Recording(
        place=options.listen,
        out=out,
        upstream=upstream,
        answer=options.answer,
        bodies=parse_limits(options.body_limit),
        keep_responses=options.keep_responses,
        keep_secrets=wanted.keep_secrets,
        scrub=wanted.rules,
        scrub_key=wanted.key,
        headers=options.record_headers,
        tls=None if options.cert is None else server_context(options.cert, options.key),
        overwrite=force,
    )


def _refuse_loop(options: HttpOptions, upstream: Upstream) -> None:
    """Raise UsageError if the proxy would forward requests to itself."""
    host, port = parse_place(options.listen)
    local = ("localhost", "127.0.0.1", "::1")
    takes = (*local, host) if host in ("0.0.0.0", "::") else local if host == "localhost" else (host,)
    reached = local if upstream.host == "localhost" else (upstream.host,)
    if port == upstream.port and set(takes) & set(reached):
        raise UsageError(
            f"--upstream {options.upstream} is the address that --listen {options.listen} listens on",
            hint="give the proxy a port of its own",
        )


def record_http(options: HttpOptions, out: Path, *, allow: tuple[str, ...], force: bool) -> None:
    """Record until a signal, and print the summary.

    If the trace cannot be made, the error says where the journal with the recording is.
    """
    recording = _recording(options, out, allow, force)

    def listening(place: str) -> None:
        scheme = "http" if options.cert is None else "https"
        way = "mirrored requests" if options.mirror else f"requests to {options.upstream}"
        say(f"recording {way} at {scheme}://{place} to {out}; Ctrl-C or SIGTERM ends it")

    try:
        with ProgressBar(Console(stderr=True)) as progress:
            recorded = record(recording, say, listening=listening, progress=progress)
    except KeyboardInterrupt:
        if (journal := journal_of(out)).exists():
            say(f"the trace was not made; {journal} holds the recording", f"replay import {journal} -o {out}")
        raise
    for line in summary_lines(recorded, out):
        tell(line)
    if recorded.failure is not None:
        raise _kept(recorded, out)


def _kept(recorded: Recorded, out: Path) -> ReplayError:
    """Return the error for a recording that is safe in its journal but could not be made into a trace."""
    assert recorded.failure is not None
    failure = type(recorded.failure)(
        f"{reason_of(recorded.failure)}: no trace was made; {recorded.journal} holds the recording",
        hint=f"free some space if the disk is full, then: replay import {recorded.journal} -o {out}",
    )
    failure.exit_code = recorded.failure.exit_code
    return failure


def summary_lines(recorded: Recorded, out: Path) -> list[str]:
    """Return the summary of a recording as lines of text."""
    accounts, notes, trace = recorded.accounts, recorded.notes, recorded.trace
    counts = accounts.counts
    lines = [f"requests {counts['requests']:,}, recorded {notes.records:,}"]
    for name, counted in (
        ("lost", notes.lost),
        ("recorded incompletely", notes.incomplete),
        ("refused and not forwarded", dict(accounts.refused)),
        ("connections", {name: count for name, count in sorted(counts.items()) if name != "requests"}),
    ):
        shown = ", ".join(f"{why} {count:,}" for why, count in counted.items() if count)
        if name != "connections":
            total = sum(counted.values())
            shown = f"{total:,}: {shown}" if total else ""
        if shown:
            lines.append(f"{name} {shown}" if name != "connections" else shown)
    if abs(recorded.clock_set_ns) >= units.SECOND_NS:
        lines.append(
            f"the system clock was changed by {units.format_duration(abs(recorded.clock_set_ns))} during the recording; "
            f"the timestamps ignore that change"
        )
    if trace is None:
        if recorded.failure is None:
            lines.append(f"no request was recorded: {out} was not written")
        return lines
    lines += _about_trace(recorded)
    return [*lines, f"trace {out}; look at it: replay inspect {out}"]


def _about_trace(recorded: Recorded) -> list[str]:
    from replay.trace.summary import summarize

    trace = recorded.trace
    assert trace is not None
    manifest, summary = trace.manifest, summarize(trace)
    statuses = ", ".join(
        f"{'none' if status < 0 else status} {rows:,}" for status, rows in summary.statuses.items()
    )
    routes = sorted(manifest.routes, key=lambda route: -route.rows)
    named = ", ".join(f"{route.route} {route.rows:,}" for route in routes[:ROUTES_SHOWN])
    more = f" and {len(routes) - ROUTES_SHOWN:,} more" if len(routes) > ROUTES_SHOWN else ""
    lines = [f"statuses {statuses}", f"routes {named}{more}", f"clients {manifest.clients:,}"]
    lines += [f"secrets {line.plain}" for line in changed_lines(manifest)]
    if manifest.responses and not recorded.notes.options.get("keep_responses"):
        lines.append(
            "sizes and digests of responses are kept; --keep-responses keeps their headers and "
            "bodies, so that replay init can propose session rules"
        )
    if recorded.notes.options.get("keep_secrets"):
        lines.append("secrets are recorded unchanged: only you can read the trace")
    return lines
