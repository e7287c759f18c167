"""Takes one sample of a watched figure: from a Prometheus server, a JSON document, a command, or Kafka.

Each sample blocks. A `SampleError` has the reason why there is no number. The size of what a source returns is
limited, redirects are not followed, and hosts must be loopback or allowed.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import shlex
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPException
from typing import Any, Protocol

import msgspec

from replay.errors import LimitError, ReplayError, reason_of
from replay.settings.groups.output import Watch
from replay.settings.scenario import Kafka

TIMEOUT_S = 2.0
END_S = 0.5
"""Maximum time in seconds to wait for the end of a killed command."""

BODY_BYTES_MAX = 1 << 20
OUTPUT_BYTES_MAX = 1 << 12

MEMBERS_MAX = 1_024
"""Maximum number of figures in one object. An object with more makes the sample fail, so that none is dropped silently."""

DEPTH_MAX = 8
"""Maximum depth of nested objects in which numbers are sampled; numbers in deeper objects are skipped."""

Members = dict[str, float]
Sample = Callable[[], float | Members]


class Permitted(Protocol):
    """Hosts beyond loopback that may be queried (`replay.plan.safety.Allowed`)."""

    def check(self, host: str, addresses: Sequence[str], /) -> None:
        """Raise LimitError if an address of a host is neither loopback nor allowed."""


class SampleError(Exception):
    """The reason why a sample has no number, in one sentence without secrets."""


def source_of(watch: Watch, permitted: Permitted, kafka: Kafka = Kafka()) -> Sample:  # noqa: B008 - frozen
    """Return the function that takes a sample of a figure. `kafka` holds the settings of a connection to Kafka."""
    if watch.prometheus:
        return partial(_prometheus, watch.prometheus, watch.query, permitted)
    if watch.json:
        read = _members if watch.members else _json
        return partial(read, watch.json, watch.pointer, permitted)
    if watch.group:
        return partial(_group_lag, watch, permitted, kafka)
    return Command(watch.command)


class Command:
    """Samples the first word that a command prints.

    The command runs without a shell, in its own process group, so that killing it also kills processes that it started.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def __call__(self) -> float:
        """Run the command once, and return the number.

        Raise SampleError if the command fails, prints no number, takes longer than TIMEOUT_S, or was stopped (`stop`).
        """
        deadline_s = time.monotonic() + TIMEOUT_S
        try:
            with self._lock:
                if self._is_stopped:
                    raise SampleError("the run has ended")
                self._process = process = subprocess.Popen(
                    shlex.split(self._command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
        except (OSError, ValueError) as error:
            raise SampleError(f"the command cannot be run: {reason_of(error)}") from None
        try:
            printed = _beginning_of_output(process, deadline_s)
            status = process.wait(max(deadline_s - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            self._end()
            raise SampleError(f"the command took more than {TIMEOUT_S:g} s") from None
        finally:
            if process.stdout is not None:
                process.stdout.close()
        if status:
            how = f"exit code {status}" if status > 0 else f"signal {-status}"
            raise SampleError(f"the command ended with {how}")
        words = printed.decode("utf-8", "replace").split()
        return _number(words[0] if words else "", "the command printed no number as its first word")

    def stop(self) -> None:
        """Kill the command if it is running, and do not run it again."""
        with self._lock:
            self._is_stopped = True
        self._end()

    def _end(self) -> None:
        with self._lock:
            process = self._process
            # The process is not polled here. Polling could reap it, and another process group could then get its number
            # before the kill.
            if process is None or process.returncode is not None:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(END_S)


def _beginning_of_output(process: subprocess.Popen[bytes], deadline_s: float) -> bytes:
    """Return the first OUTPUT_BYTES_MAX bytes of the output; the rest is read and dropped.

    Raise TimeoutExpired if the output does not end by `deadline_s`, on the monotonic clock.
    """
    assert process.stdout is not None
    place, printed = process.stdout.fileno(), b""
    ready = select.poll()
    ready.register(place, select.POLLIN)
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not ready.poll(left_s * 1_000):
            raise subprocess.TimeoutExpired(process.args, TIMEOUT_S)
        part = os.read(place, 1 << 16)
        if not part:
            return printed
        printed += part[: OUTPUT_BYTES_MAX - len(printed)]


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, because they may lead to a host that is not allowed."""

    def redirect_request(self, *args: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


def _get(url: str, permitted: Permitted) -> Any:
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, parts.port or 80, type=socket.SOCK_STREAM)
        permitted.check(host, [str(entry[4][0]) for entry in found])
        request = urllib.request.Request(url, headers={"Accept": "application/json"})
        with _OPENER.open(request, timeout=TIMEOUT_S) as response:
            body = response.read(BODY_BYTES_MAX + 1)
    except LimitError:
        raise SampleError(
            f"{host} is beyond this machine and not allowed; to allow it: --allow {host}"
        ) from None
    except urllib.error.HTTPError as error:
        raise SampleError(f"{host} answered {error.code}") from None
    except urllib.error.URLError as error:
        why = error.reason
        raise SampleError(f"{host}: {reason_of(why) if isinstance(why, OSError) else why}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise SampleError(f"{host}: {reason_of(error)}") from None
    if len(body) > BODY_BYTES_MAX:
        raise SampleError(f"{host} answered with more than {BODY_BYTES_MAX >> 20} MiB")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SampleError(f"{host} did not answer with JSON") from None


def _json(url: str, pointer: str, permitted: Permitted) -> float:
    return _number(_value_at(url, pointer, permitted), f"{pointer or 'the document'} is not a number")


def _members(url: str, pointer: str, permitted: Permitted) -> Members:
    """Return the finite numbers in an object and in its nested objects, by dotted name. Other values are skipped.

    Raise SampleError if there is no number, or if there are more than MEMBERS_MAX.
    """
    value = _value_at(url, pointer, permitted)
    found: Members = {}
    if isinstance(value, dict):
        _collect(value, "", found)
    if not found:
        raise SampleError(f"{pointer or 'the document'} is not an object with numbers in it")
    if len(found) > MEMBERS_MAX:
        raise SampleError(
            f"{pointer or 'the document'} has more than {MEMBERS_MAX} numbers: point to a part of it"
        )
    return found


def _collect(value: dict[str, Any], before: str, found: Members) -> None:
    for name, member in value.items():
        if isinstance(member, dict):
            if before.count(".") < DEPTH_MAX:
                _collect(member, f"{before}{name}.", found)
        elif isinstance(member, int | float) and not isinstance(member, bool) and abs(member) < math.inf:
            found[before + name] = float(member)


def _value_at(url: str, pointer: str, permitted: Permitted) -> Any:
    value = _get(url, permitted)
    for token in pointer.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise SampleError(f"the document has no {pointer}")
    return value


def _prometheus(url: str, query: str, permitted: Permitted) -> float:
    place = url.rstrip("/") + "/api/v1/query?" + urllib.parse.urlencode({"query": query})
    answer = _get(place, permitted)
    data = answer.get("data") if isinstance(answer, dict) else None
    result = data.get("result") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(result, list):
        raise SampleError("the server did not answer as Prometheus does")
    if data.get("resultType") == "vector":
        if not result:
            raise SampleError("the query has no result: check its metric and its labels")
        if len(result) != 1:
            raise SampleError(f"the query has {len(result)} results: aggregate them to one, as sum(...) does")
        result = result[0].get("value") if isinstance(result[0], dict) else None
    if not isinstance(result, list) or len(result) != 2:
        raise SampleError("the result of the query is not a single number")
    return _number(result[1], "the result of the query is not a finite number")


def _group_lag(watch: Watch, permitted: Permitted, kafka: Kafka) -> float:
    # The import is here because the client for Kafka is slow to import, and few runs need it.
    from replay.protocols.kafka.group_lag import group_lag

    try:
        return float(group_lag(watch.group, watch.brokers, kafka, permitted.check))
    except ReplayError as error:
        raise SampleError(str(error)) from None


def _number(value: Any, otherwise: str) -> float:
    """Return a value as a number; texts may contain numbers, too.

    Raise SampleError for anything else, including infinities and NaN.
    """
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise SampleError(otherwise)
    return number
