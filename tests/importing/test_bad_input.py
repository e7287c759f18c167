"""What may stand between good lines: it is counted by what is wrong with it, and what is good is imported."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest

from replay.cli.import_ import ProgressBar
from replay.report.console import Console
from replay.trace.importing import import_files

_COMMON = '10.0.0.1 - - [05/Jan/2026:18:00:%02d +0000] "GET /%d HTTP/1.1" 200 5\n'
_CADDY = (
    '{"ts":1700000000.%d,"request":{"remote_ip":"10.0.0.1","method":"GET","host":"h","uri":"/%d"},'
    '"duration":%s,"size":5,"status":200}\n'
)


def _common(second: int) -> bytes:
    return (_COMMON % (second, second)).encode()


def _caddy(number: int, duration: str = "0.25") -> bytes:
    return (_CADDY % (number, number, duration)).encode()


@pytest.mark.parametrize(
    ("good", "bad", "rejected"),
    [
        (_common, _caddy(1), {"not this format": 1}),
        (_caddy, _common(1), {"not this format": 1}),
        (_common, b"\xff\xfe\xfd\n", {"not this format": 1}),
        (_common, b"\0" * 5000 + b"\n", {"blank": 1}),
        (_common, b'10.0.0.9 - - [05/Jan/2026:18:00:05 +0000] "\x16\x03\x01\x02" 400 157\n', {"no method": 1}),
        (_common, b'10.0.0.9 - - [05/Jan/2026:18:00:05 +0000] "\\x16\\x03\\x01" 400 157\n', {"no method": 1}),
        (_common, b"x" * 10_000_000 + b"\n", {"too long line": 1}),
        (_caddy, b'{"ts":' + b"1" * 10_000_000 + b"}\n", {"too long line": 1}),
        (_common, _common(5).replace(b"2026", b"1969"), {"bad time": 1}),
        (_common, _common(5).replace(b"2026", b"2300"), {"bad time": 1}),
        (_caddy, _caddy(1)[:60] + b"\n", {"not this format": 1}),
    ],
)  # fmt: skip
def test_a_bad_line_is_counted_and_costs_no_good_one(tmp_path: Path, good, bad, rejected) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.log"
    path.write_bytes(b"".join(map(good, range(10, 20))) + bad + b"".join(map(good, range(20, 30))))
    trace = import_files([path], tmp_path / "a.trace")
    assert (trace.rows, trace.manifest.rejected, trace.manifest.lines) == (20, rejected, 21)
    assert [each.line for each in trace.manifest.rejected_examples] in ([11], [])


def test_a_value_that_no_replay_needs_costs_no_request(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    bad = _caddy(1, '"soon"').replace(b'"status":200', b'"status":"2xx"')
    path.write_bytes(b"".join(map(_caddy, range(10, 20))) + bad + _caddy(1, "-0.5"))
    trace = import_files([path], tmp_path / "a.trace")
    assert (trace.rows, trace.manifest.rejected) == (12, {})
    assert trace.manifest.unknown_values["duration"] == 2


def test_bytes_that_are_no_utf_8_are_sent_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(_common(1).replace(b"/1 ", b"/\xff\xe9 ") + _common(2))
    trace = import_files([path], tmp_path / "a.trace")
    assert [trace.requests.get(i).target for i in range(2)] == [b"/%FF%E9", b"/2"]


def test_the_progress_bar_is_not_shown_of_what_is_no_import() -> None:
    screen = StringIO()
    with ProgressBar(Console(file=screen, force_terminal=True, width=120)):
        pass
    assert screen.getvalue() == ""


def test_the_progress_bar_says_lines_per_second_and_the_time_left() -> None:
    screen = StringIO()
    bar = ProgressBar(Console(file=screen, force_terminal=True, width=120))
    clock_s = iter(range(100))
    bar._bar.get_time = lambda: float(next(clock_s))
    with bar as update:
        for done in (1, 2, 3):
            update(done << 20, 10 << 20, done * 50_000)
        bar._bar.refresh()
    assert "150,000 lines" in screen.getvalue()
    assert "per second" in screen.getvalue()
    assert "30%" in screen.getvalue()
    assert "0:00:" in screen.getvalue()
