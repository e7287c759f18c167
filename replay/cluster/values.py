"""Turns a scenario into plain values.

Agents then need no file, variable or command of the coordinator's machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from replay.decoding import examined
from replay.errors import InputError, UsageError, reason_of
from replay.protocols.registry import protocol_of
from replay.settings.headers import expand
from replay.settings.kinds import Count
from replay.settings.scenario import Scenario
from replay.settings.session_rules import Auth
from replay.settings.target import scheme_of
from replay.units import format_duration

FILE_BYTES_MAX = 32 << 20
"""The size of the largest file of a scenario that is sent to agents.

Traces are transferred in pieces, but these files are part of the plan.
"""

_NAMES = re.compile(r"\$\$|\$(?:(\w+)|\{(\w+)\})", re.ASCII)

RESERVED = "REPLAY_"
"""The prefix of variables that belong to the agent's own machine, so that a plan cannot set them."""


def names_in(text: str) -> Iterator[str]:
    """Yield the names of the environment variables that a text uses."""
    for match in _NAMES.finditer(text):
        if match[1] or match[2]:
            yield match[1] or match[2]


def variables_of(scenario: Scenario) -> list[str]:
    """List the environment variables that the scenario's requests use, each once."""
    texts = [
        *scenario.headers.values(),
        *(rule.value or "" for rule in scenario.set if rule.header is not None),
    ]
    if any(scheme_of(own.target) == "kafka" for own in scenario.by_target()):
        texts += [scenario.kafka.sasl_plain_username, scenario.kafka.sasl_plain_password]
    names = [name for text in texts for name in names_in(text)]
    return list(dict.fromkeys(names + [one.env for one in scenario.variable if one.env is not None]))


def environment(scenario: Scenario, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the values of the variables that the scenario uses.

    Raises UsageError if a variable is not set, or must not be in a plan.
    """
    environ = os.environ if environ is None else environ
    values = {}
    for name in variables_of(scenario):
        if name.startswith(RESERVED):
            raise UsageError(
                f"${name}: variables of replay itself are not passed to agents", hint="use another name"
            )
        if name not in environ:
            raise UsageError(f"the environment variable {name} is not set", hint=f"export {name}=VALUE")
        values[name] = environ[name]
    return values


def check_environment(scenario: Scenario, environ: Mapping[str, str]) -> None:
    """Raise UsageError if a plan sets a variable that its scenario does not use. The agent calls it."""
    known = {name for name in variables_of(scenario) if not name.startswith(RESERVED)}
    if strange := sorted(set(environ) - known):
        raise UsageError(f"the plan sets {strange[0]}, which its scenario does not use")


async def for_agents(scenario: Scenario, agents: int, length_ns: int) -> tuple[Scenario, dict[str, bytes]]:
    """Return the scenario for the agents, and the content of its files by name.

    The connections are divided among the agents. `length_ns` is the time until the run ends, including the wait for
    its start. The auth command is run here, once. Raises InputError or UsageError if a file cannot be part of a plan,
    UsageError if the header of the auth command would expire.
    """
    files: dict[str, bytes] = {}

    def content(path: str | None) -> str | None:
        if not path:
            return path
        name = f"file-{len(files)}{Path(path).suffix}"
        files[name] = _read(Path(path))
        return name

    replace = msgspec.structs.replace
    tls = replace(
        scenario.tls, **{key: content(getattr(scenario.tls, key)) or "" for key in ("ca", "cert", "key")}
    )
    kafka = replace(scenario.kafka, ssl_cafile=content(scenario.kafka.ssl_cafile) or "")
    body = tuple(replace(rule, file=content(rule.file)) for rule in scenario.body)
    variable = tuple(replace(rule, file=content(rule.file)) for rule in scenario.variable)
    headers = dict(scenario.headers)
    if scenario.auth.command:
        headers |= await _auth_header(scenario.auth, length_ns)
    connections = scenario.connections
    if str(connections) != "auto":
        connections = Count(max(1, -(-int(connections) // agents)))
    shared = replace(
        scenario, tls=tls, kafka=kafka, body=body, variable=variable, headers=headers, auth=Auth(), connections=connections,
        watch=(), notify=(), live="", live_allow=(), live_cert="", live_key="", start_at=None, allow=(), trace="",
        split_clients=False,
    )  # fmt: skip
    return shared, files


async def _auth_header(auth: Auth, length_ns: int) -> dict[str, str]:
    """Run the auth command, and return the header that it prints, with each `$` escaped.

    Raises UsageError if the header would have to be refreshed before the run ends.
    """
    from replay.protocols.http1.auth import header_line

    if 0 < auth.refresh_ns < length_ns:
        raise UsageError(
            f"auth.refresh: the run ends in {format_duration(length_ns)}, but agents get the header only once, now",
            hint="use a token that is valid for that time, and a longer auth.refresh (0s: never)",
        )
    name, _, value = (await header_line(auth)).decode("latin-1").strip().partition(": ")
    return {name: value.replace("$", "$$")}


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {reason_of(error)}", hint="agents need its content") from None
    if len(data) > FILE_BYTES_MAX:
        raise UsageError(f"{path} is too large to be part of a plan", hint="the limit is 32 MiB")
    return data


def encoded(scenario: Scenario) -> bytes:
    """Encode a scenario for a plan, with exact values.

    The text of a scenario file is rounded (`1.41421x`), so that agents would plan another number of requests.
    """
    return msgspec.msgpack.encode(scenario, enc_hook=raw)


def decoded(data: bytes) -> Scenario:
    """Decode the scenario of a plan. Raises UsageError if it is invalid."""
    try:
        values: Any = msgspec.msgpack.decode(data)
        return msgspec.convert(values, examined(Scenario), dec_hook=exact)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise UsageError(f"the plan's scenario cannot be read: {error}") from None


def raw(value: Any) -> Any:
    """Convert a setting to a plain value: the encoding hook of msgspec."""
    for base in (int, float, str):
        if isinstance(value, base):
            return base(value)
    raise TypeError(f"{type(value).__name__} has no plain value")


def exact(kind: Any, value: Any) -> Any:
    """Convert a plain value to a setting: the decoding hook of msgspec.

    The coordinator has already parsed and checked the value.
    """
    if isinstance(value, kind):
        return value
    if issubclass(kind, tuple) and isinstance(value, list):
        return kind(tuple(one) if isinstance(one, list) else one for one in value)
    for base in (int, float, str):
        if issubclass(kind, base) and isinstance(value, base):
            return kind(value)
    raise ValueError(f"{value!r} is no {kind.__name__}")


def settled(
    scenario: Scenario, files: Mapping[str, bytes], area: Path, allow: tuple[str, ...], lanes: int
) -> Scenario:
    """Return the scenario as an agent runs it: with files in `area`, this machine's allowed hosts, and its lanes.

    Raises UsageError if the plan does not have a file of its scenario, or has one with an invalid name.
    """
    for name, data in files.items():
        if Path(name).name != name or not name.startswith("file-"):
            raise UsageError(f"the plan has a file with the invalid name {name!r}")
        path = area / name
        path.touch(0o600)
        path.write_bytes(data)

    def placed(name: str | None) -> str | None:
        if not name:
            return name
        if name not in files:
            raise UsageError(f"the plan has no file {name!r}")
        return str(area / name)

    replace = msgspec.structs.replace
    tls = replace(
        scenario.tls, **{key: placed(getattr(scenario.tls, key)) or "" for key in ("ca", "cert", "key")}
    )
    return replace(
        scenario,
        tls=tls,
        kafka=replace(scenario.kafka, ssl_cafile=placed(scenario.kafka.ssl_cafile) or ""),
        body=tuple(replace(rule, file=placed(rule.file)) for rule in scenario.body),
        variable=tuple(replace(rule, file=placed(rule.file)) for rule in scenario.variable),
        allow=allow,
        threads=Count(lanes),
    )


def check_fits(scenario: Scenario) -> None:
    """Raise UsageError for a scenario that cannot run over many machines."""
    if scenario.closed_loop:
        raise UsageError("--cluster needs a schedule, and a closed loop has none", hint="give a rate")
    for own in scenario.by_target():
        protocol_of(own.target).check_shares(own)


def checked_headers(scenario: Scenario) -> None:
    """Raise UsageError for a header that cannot be sent, before anything is transferred."""
    for name, value in scenario.headers.items():
        expand(f"the header {name}", value, os.environ)
