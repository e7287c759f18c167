"""The example package's protocol runs by the real command, as any protocol that a package brings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from replay.results.document import Latency
from replay.results.run import load_run
from tests.support.echo_server import echo_server
from tests.support.example_package import install
from tests.support.trace_data import Row, write_trace

MS = 1_000_000
ROWS = 120


def command(env: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "replay.cli", *map(str, words)],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return install(tmp_path / "site")


@pytest.mark.whole
def test_a_protocol_of_a_package_runs_open_loop_with_the_same_accounts(tmp_path, env):
    rows = [Row(n * 5 * MS, "GET", b"/a" if n % 3 else b"/b", client=n % 4, status=200) for n in range(ROWS)]
    trace = write_trace(tmp_path / "t.trace", rows)
    with echo_server() as server:
        target = f"echo://127.0.0.1:{server.port}"
        done = command(env, "run", trace.path, "--target", target, "-o", tmp_path / "run", "--plain")
    assert done.returncode in (0, 4), done.stderr
    document = load_run(tmp_path / "run").document
    assert (document.generator.engine, document.accounts.planned, document.accounts.ok) == (
        "portable",
        ROWS,
        ROWS,
    )
    assert sorted(server.lines) == sorted(b"GET /a\n" if n % 3 else b"GET /b\n" for n in range(ROWS))
    assert {route.route: route.outcomes["2xx"] for route in document.routes} == {"GET /a": 80, "GET /b": 40}
    assert isinstance(document.latency.response, Latency)
    assert isinstance(document.latency.service, Latency)
    assert document.latency.response.count == document.latency.service.count == ROWS
    assert document.latency.response.p50_ns > 0 and document.duration_s > 0.5
    assert target in done.stdout


@pytest.mark.whole
def test_what_fails_is_in_the_accounts(tmp_path, env):
    targets = [b"/a", b"/garble", b"/hang"]
    trace = write_trace(tmp_path / "t.trace", [Row(n * 10 * MS, "GET", t) for n, t in enumerate(targets * 4)])
    with echo_server() as server:
        command(
            env, "run", trace.path, "--target", f"echo://127.0.0.1:{server.port}", "-o", tmp_path / "run",
            "--timeout", "300ms", "--quiet",
        )  # fmt: skip
    document = load_run(tmp_path / "run").document
    outcomes = document.accounts_detail
    assert (document.accounts.ok, document.accounts.error, document.accounts.timeout) == (4, 4, 4), outcomes
    assert document.accounts.planned == document.accounts.sent


def test_its_targets_are_planned_and_checked_as_all_others(tmp_path, env):
    trace = write_trace(tmp_path / "t.trace", [Row(0)])
    for url, code, words in (
        ("echo://127.0.0.1:1", 0, "echo://127.0.0.1:1"),
        ("echo://192.0.2.1:1", 2, "--allow 192.0.2.1"),
        ("echo://127.0.0.1:0", 2, "there is no port 0"),
        ("echo://127.0.0.1:1/orders", 2, "has a path, which a target of echo:// cannot have"),
        ("ehco://127.0.0.1:1", 2, "did you mean echo?"),
    ):
        done = command(env, "run", trace.path, "--target", url, "--dry-run", "--plain")
        assert done.returncode == code and words in " ".join((done.stdout + done.stderr).split()), done
    flags = (
        "--target",
        "echo://127.0.0.1:1",
        "--dry-run",
        "--plain",
        "-H",
        "A: b",
        "--insecure",
        "--host",
        "x",
    )
    done = command(env, "run", trace.path, *flags)
    assert "host, headers (for HTTP targets); tls.insecure (for https targets)" in " ".join(
        done.stdout.split()
    )
    done = command(env, "run", trace.path, "--target", "echo://127.0.0.1:1", "-o", tmp_path / "run")
    assert done.returncode == 2 and "does not accept connections" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("other", "replay_example.nothing:PROTOCOL", "cannot be loaded: ModuleNotFoundError"),
        ("other", "replay_example.echo:render", "is not a replay.protocols.Protocol"),
        ("http", "replay_example.echo:PROTOCOL", "provides a protocol for http, which replay has built in"),
    ],
)
def test_a_package_that_is_wrong_is_named(tmp_path, env, name, value, words):
    entry_points = next((tmp_path / "site").glob("*.dist-info")) / "entry_points.txt"
    entry_points.write_text(f"[replay.protocols]\n{name} = {value}\n")
    trace = write_trace(tmp_path / "t.trace", [Row(0)])
    done = command(env, "run", trace.path, "--target", "other://127.0.0.1:1", "--dry-run")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    shown = " ".join(done.stderr.split())
    assert words in shown and "replay-example" in shown, shown


def test_a_run_over_many_machines_is_refused_since_nothing_says_how_to_cut_it(tmp_path, env):
    trace = write_trace(tmp_path / "t.trace", [Row(0, "GET", b"/a")])
    how = ("--target", "echo://127.0.0.1:9", "--cluster", "local:2", "-o", tmp_path / "run")
    done = command(env, "run", trace.path, *how)
    assert done.returncode == 2, done.stderr
    assert "--cluster supports HTTP and Kafka targets, but the target is echo" in done.stderr
