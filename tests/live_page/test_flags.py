"""`--live` and its companions on the command line: what is refused before anything is sent, and the linger."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import replay
from replay.errors import UsageError
from replay.settings.file import load
from replay.settings.listening import is_loopback_host, parse_place
from replay.staging.sink import Sink
from tests.support.trace_data import Row, write_trace


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    write_trace(tmp_path / "t.trace", [Row(n * 10_000_000) for n in range(100)])
    return tmp_path / "t.trace"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--live=8089"], "'8089' is not an address to listen on"),
        (["--live=127.0.0.1:99999"], "is not an address to listen on"),
        (["--live=::1:80"], "is not an address to listen on"),
        (["--live=0.0.0.0:0"], "0.0.0.0 is beyond this machine"),
        (["--live=0.0.0.0:0", "--live-allow", "10.1.2.3"], "--live-allow 0.0.0.0"),
        (["--live-allow", "10.1.2.3"], "there is no live page"),
        (["--live-linger", "10m"], "add --live"),
        (["--live", "--live-key", "x.pem"], "a key without its certificate"),
        (["--live", "--live-cert", "missing.pem"], "missing.pem cannot be used"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(
    trace: Path, given: list[str], message: str
) -> None:
    said = run_words(trace, *given)
    done = subprocess.run(said, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def run_words(trace: Path, *more: str, port: int = 1) -> list[str]:
    return [
        sys.executable, "-m", "replay.cli", "run", str(trace), "--target", f"http://127.0.0.1:{port}", "-o",
        str(trace.parent / "run"), "--plain", *more,
    ]  # fmt: skip


def test_a_port_in_use_is_named_and_nothing_is_sent(trace: Path) -> None:
    with Sink(capacity=1_000) as target, socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        words = run_words(trace, f"--live={place}", port=target.port)
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert f"{place} is in use" in done.stderr
        assert target.arrivals == 0
    assert not (trace.parent / "run").exists()


def test_a_value_stands_after_an_equals_sign_only(trace: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "replay.cli",
        "run",
        "--live",
        str(trace),
        "--target",
        "http://127.0.0.1:1",
        "--dry-run",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert load(None, {"target": "http://127.0.0.1:1", "live": "[::1]:0"}, {}).live == "[::1]:0"


def test_places() -> None:
    assert parse_place("[::1]:80") == ("::1", 80)
    assert parse_place("Example.com:0") == ("example.com", 0)
    assert is_loopback_host("127.9.9.9")
    assert not is_loopback_host("localhost.evil.example")
    for text in ("", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "[127.0.0.1]:80", "a:b:80"):
        with pytest.raises(UsageError, match="address to listen on"):
            parse_place(text)


def test_the_library_serves_it_too_and_what_is_only_prepared_does_not(
    trace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Sink(capacity=1_000) as target:
        url = f"http://127.0.0.1:{target.port}"
        at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=4)
        run = replay.run(
            trace, target=url, out=tmp_path / "run", live="127.0.0.1:0", start_at=at, duration="200ms"
        )
        assert abs(run.document.start.wall_ns / 1e9 - at.timestamp()) < 0.05
        for given in ({"live": "127.0.0.1:0"}, {"notify": ["http://127.0.0.1:1/"]}, {"start_at": "+1h"}):
            with pytest.raises(UsageError, match="does not start a run"):
                replay.prepare(trace, target=url, **given)  # type: ignore[arg-type]
    assert "live page: http://127.0.0.1:" in capsys.readouterr().err


@pytest.mark.whole
def test_without_the_packages_it_says_how_to_install_them(trace: Path) -> None:
    code = "import sys; sys.modules['hypercorn'] = None; from replay.cli import main; main()"
    words = [sys.executable, "-c", code, *run_words(trace, "--live=127.0.0.1:0")[3:]]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "hypercorn" in done.stderr and "pip install 'replay-engine[live]'" in done.stderr


@pytest.mark.whole
@pytest.mark.parametrize("is_open", [False, True])
def test_it_lingers_ends_with_ctrl_c_and_the_exit_code_is_the_runs(trace: Path, is_open: bool) -> None:
    place = ["--live=0.0.0.0:0", "--live-allow", "0.0.0.0"] if is_open else ["--live=127.0.0.1:0"]
    with Sink(capacity=1_000) as target:
        words = run_words(trace, *place, "--live-linger", "1h", "--slo", "p50<1us", port=target.port)
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = ""
        while "stays open for another 1 h" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        link = re.search(r"live page: http://[^:]+:(\d+)/#(\S+)", said)
        assert link
        assert ("sent unencrypted" in said) == is_open
        connection = http.client.HTTPConnection("127.0.0.1", int(link[1]), timeout=10)
        connection.request("GET", "/stream", headers={"Authorization": f"Bearer {link[2]}"})
        lines = [json.loads(line) for line in connection.getresponse().read().splitlines() if line.strip()]
        assert lines[-1] == {"over": True}
        rows = [line["second"]["row"] for line in lines if "second" in line]
        kept = (trace.parent / "run" / "timeline.jsonl").read_text().splitlines()
        assert rows == [json.loads(row) for row in kept]
        os.kill(process.pid, signal.SIGINT)
        saved = (trace.parent / "run" / "run.json").read_text()
        assert process.wait(20) == (4 if json.loads(saved)["validity"]["verdict"] == "INVALID" else 99)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(link[1])), 1)
    assert link[2] not in saved


@pytest.mark.whole
def test_peak_shows_all_its_trials_under_one_link(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.trace", [Row(n * 10_000_000) for n in range(400)])
    with Sink(capacity=50_000) as target:
        words = [
            sys.executable, "-m", "replay.cli", "peak", str(tmp_path / "t.trace"), "--target",
            f"http://127.0.0.1:{target.port}", "-o", str(tmp_path / "peak"), "--live=127.0.0.1:0", "--live-linger", "1h",
            "--trial", "1s", "--hold", "1s", "--votes", "1", "--highest", "1", "--lowest", "0.5",
        ]  # fmt: skip
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        said = ""
        until = time.monotonic() + 120
        while "stays open for another 1 h" not in said and time.monotonic() < until:
            said += process.stderr.readline()
        link = re.search(r"live page: http://[^:]+:(\d+)/#(\S+)", said)
        assert link, said
        connection = http.client.HTTPConnection("127.0.0.1", int(link[1]), timeout=10)
        connection.request("GET", "/stream", headers={"Authorization": f"Bearer {link[2]}"})
        lines = [json.loads(line) for line in connection.getresponse().read().splitlines() if line.strip()]
        process.send_signal(signal.SIGINT)
        process.wait(20)
    runs = [line["end"]["run"] for line in lines if "end" in line]
    assert runs == list(range(1, len(runs) + 1))
    assert len(runs) >= 2
    sections: dict[str, str] = {}
    for line in lines:
        sections |= line.get("sections", {})
    assert all(f"run {number}" in sections["runs"] for number in runs)
