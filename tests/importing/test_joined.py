"""Logs in which a request has several lines: they are joined across blocks, and never to another request's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replay.trace.importing import import_files
from tests.support.events import events


def _rails(number: int, kind: str, tags: str, process: int) -> str:
    prefix = f"I, [2023-11-14T22:13:2{number % 10}.{number:06} #{process}]  INFO -- : {tags}"
    if kind == "start":
        return f'{prefix}Started GET "/{number}" for 10.0.0.1 at 2023-11-14 22:13:2{number % 10} +0000\n'
    return f"{prefix}Completed {200 + number} OK in {number + 1}ms\n"


def _fastify(number: int, kind: str) -> str:
    line = {"level": 30, "time": 1_700_000_000_000 + number, "pid": 1, "reqId": f"req-{number}"}
    more = (
        {"req": {"method": "GET", "url": f"/{number}"}}
        if kind == "start"
        else {"res": {"statusCode": 200 + number}, "responseTime": number + 1}
    )
    return json.dumps(line | more) + "\n"


WRITERS = {
    "rails with request ids": lambda number, kind: _rails(number, kind, f"[id-{number}] ", 7),
    "rails with a process each": lambda number, kind: _rails(number, kind, "", number),
    "fastify": _fastify,
}


@pytest.mark.parametrize("block_bytes", [300, 1 << 20])
@pytest.mark.parametrize("writer", WRITERS)
def test_all_requests_at_once_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, block_bytes: int
) -> None:
    monkeypatch.setattr("replay.trace.importing.sources.BLOCK_BYTES", block_bytes)
    write = WRITERS[writer]
    starts = [write(number, "start") for number in range(10)]
    ends = [write(number, "end") for number in reversed(range(9))]
    (tmp_path / "a.log").write_text("".join(starts + ends))
    trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace", jitter=False)
    got = {event.target: (event.status, event.took_ns) for event in events(trace)}
    wanted = {b"/%d" % number: (200 + number, (number + 1) * 1_000_000) for number in range(9)}
    assert got == wanted | {b"/9": (-1, -1)}
    manifest = trace.manifest
    assert manifest.lines == 19 and manifest.rejected == {"another line of a request": 9}


@pytest.mark.parametrize("count", [2, 150])
def test_what_cannot_be_told_apart_has_no_status(tmp_path: Path, count: int) -> None:
    started = 'Started GET "/{}" for 10.0.0.1 at 2023-11-14 22:13:20 +0000\n'
    lines = [started.format(number) for number in range(count)] + ["Completed 200 OK in 5ms\n"] * count
    (tmp_path / "a.log").write_text("".join(lines))
    trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace", jitter=False)
    assert {event.status for event in events(trace)} == {-1} and trace.rows == count
    assert sum(trace.manifest.rejected.values()) == count
    assert trace.manifest.rejected["completed, but which request"] >= min(count, 100) - 1
