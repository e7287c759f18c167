"""The real command: whatever a user gets wrong is one clear line and an exit code, and harms nothing."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import replay.cli
from replay.cli import findings
from replay.staging.sink import Sink
from replay.trace import FORMAT_VERSION
from tests.support.trace_data import Row, write_trace

LINE = '192.0.2.{0} - - [05/Jan/2026:18:00:{1:02} +0100] "{2} {3} HTTP/1.1" 200 512\n'
HEAVY = {"numba", "numpy", "pyarrow", "trio", "rich", "replay.plan.schedule"}

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def log_text(rows: int = 40, method: str = "GET") -> str:
    return "".join(LINE.format(n % 5, n % 60, method, f"/users/{n}") for n in range(rows))


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `replay` in an empty folder."""

    def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "COLUMNS": "100", **options.pop("env", {})}
        env.pop("REPLAY_DEBUG", None)
        words = [sys.executable, "-m", "replay.cli", *map(str, arguments)]
        return subprocess.run(
            words, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=env, check=False, **options
        )

    return run


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_text(log_text())
    return path


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(run_s=60) as running:
        yield running


def url(sink: Sink) -> str:
    return f"http://127.0.0.1:{sink.port}"


def said(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line of an error."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("compiling kernels")]
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert len(lines) == 1, lines
    assert lines[0].startswith("replay: ")
    return lines[0]


@pytest.fixture
def invoke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run `replay` in this process, in an empty folder; the one line of its error."""

    def run(*arguments: str | Path) -> str:
        monkeypatch.chdir(tmp_path)
        assert replay.cli.invoke([str(argument) for argument in arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("replay: ")
        return line

    return run


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_missing_file(command: Command) -> None:
    assert "none.log: no such file" in said(command("run", "none.log", "--target", "http://127.0.0.1:9"))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"colour,value\nred,5\n" * 20, "not a log of a known format"),
        (bytes(range(256)) * 40, "binary"),
    ],
)
def test_a_file_that_is_no_log(command: Command, tmp_path: Path, content: bytes, word: str) -> None:
    (tmp_path / "x.log").write_bytes(content)
    line = said(command("run", "x.log", "--target", "http://127.0.0.1:9"))
    assert "x.log" in line and word in line
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("runs")) == ["x.log"]


@pytest.mark.timing
@pytest.mark.whole
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_command_that_is_told_to_end_leaves_nothing_half_written(
    tmp_path: Path, name: str, ignored: bool
) -> None:
    number = signal.Signals[name]
    ask = f"import signal, sys, replay.cli\nsignal.signal({number.value}, signal.SIG_DFL)\n"
    ask += f"signal.signal(signal.SIGINT, signal.{'SIG_IGN' if ignored else 'default_int_handler'})\n"
    ask += "sys.argv = ['replay', 'generate', '-o', 'x.trace', '-d', '300s', '--poisson', '1000000']\n"
    with subprocess.Popen(
        [sys.executable, "-c", ask + "replay.cli.main()"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            for _ in range(2_000):
                if process.poll() is not None or list(tmp_path.glob("*/*events-*")):
                    break
                time.sleep(0.01)
            process.send_signal(number)
            said = process.communicate(timeout=30)[1]
        finally:
            process.kill()
    assert (process.returncode, said.splitlines()[-1:]) == (130, ["replay: interrupted"])
    assert not list(tmp_path.iterdir())


def test_half_a_trace(command: Command, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(0)])
    (trace.path / "manifest.json").unlink()
    line = said(command("run", "t.trace", "--target", "http://127.0.0.1:9"))
    assert "t.trace" in line and "is incomplete" in line


def test_a_damaged_trace(invoke: Callable[..., str], tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(n) for n in range(1000)])
    (events,) = trace.path.glob("events-*.arrow")
    events.write_bytes(events.read_bytes()[:-2000])
    assert "is damaged" in invoke("inspect", "t.trace")


def test_a_trace_of_a_newer_version(command: Command, tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(0)])
    manifest = json.loads((trace.path / "manifest.json").read_text())
    manifest["format_version"] = FORMAT_VERSION + 1
    (trace.path / "manifest.json").write_text(json.dumps(manifest))
    assert "newer replay" in said(command("run", "t.trace", "--target", "http://127.0.0.1:9"))


def test_a_target_that_refuses(command: Command, log: Path, tmp_path: Path) -> None:
    line = said(command("run", log, "--target", f"http://127.0.0.1:{closed_port()}", "-o", "r"))
    assert "does not accept connections: connection refused (" in line
    assert not (tmp_path / "r").exists() and not list(tmp_path.glob(".r.*"))


def test_a_host_that_does_not_resolve(command: Command, log: Path) -> None:
    assert "no-such-host.invalid has no address" in said(
        command("run", log, "--target", "http://no-such-host.invalid")
    )


def test_a_host_that_is_not_allowed(command: Command, log: Path) -> None:
    line = said(command("run", log, "--target", "http://192.0.2.7"))
    assert "not allowed" in line and "--allow 192.0.2.7" in line


@pytest.mark.parametrize("target", ["127.0.0.1:80", "ftp://127.0.0.1", "https://", "http://u:p@127.0.0.1"])
def test_a_target_that_is_none(invoke: Callable[..., str], log: Path, target: str) -> None:
    assert "target" in invoke("run", log, "--target", target)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('tagret = "http://x"', ["line 1", "tagret", "target"]),
        ('timeout = "5 sec"', ["line 1", "timeout", "5s"]),
    ],
)
def test_a_wrong_scenario(command: Command, log: Path, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "s.toml").write_text(text)
    line = said(command("run", log, "s.toml", "--target", "http://127.0.0.1:9"))
    assert all(word in line for word in ["s.toml", *words])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], ["rnu", "did you mean run"]),
        (["run", "--tagret", "x"], ["--tagret", "--target"]),
        (["run", "x.log", "--target", "http://127.0.0.1:9", "--speed", "fast"], ["--speed", "fast", "200%"]),
        (["run", "x.log", "--target", "http://127.0.0.1:9", "--from", "soon"], ["--from", "soon"]),
        (["run", "x.log", "--target", "http://127.0.0.1:9", "--slo", "p99>3"], ["--slo", "p99>3"]),
        (["run", "x.log", "--target", "http://127.0.0.1:9", "-H", "A b: c"], ["A b"]),
        (["run", "x.log", "--target", "http://127.0.0.1:9", "--seed", "x"], ["--seed"]),
        (["run", "x.log"], ["no target"]),
        (["run"], ["no trace or log"]),
        (["run", "a.toml", "b.toml"], ["more than one scenario"]),
        (["report", "none"], ["none"]),
        (["init", "x.log"], ["--target"]),
    ],
)
def test_wrong_usage(invoke: Callable[..., str], arguments: list[str], words: list[str]) -> None:
    line = invoke(*arguments)
    assert all(word in line for word in words), line


def test_routes_that_need_a_body_are_named(invoke: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text(log_text(method="POST"))
    line = invoke("run", "x.log", "--target", "http://127.0.0.1:9", "--methods", "POST")
    assert "POST /users/{id}" in line and "--empty-bodies" in line


def test_a_plan_over_a_limit_sends_nothing(command: Command, log: Path, sink: Sink) -> None:
    line = said(command("run", log, "--target", url(sink), "--speed", "10", "--max-rate", "2/s"))
    assert "the limit is 2.00/s" in line and "--max-rate" in line
    assert sink.arrivals == 0


def test_an_output_that_exists_is_not_touched(
    command: Command, invoke: Callable[..., str], log: Path, tmp_path: Path, sink: Sink
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "run.json").write_text("kept")
    assert "r exists" in said(command("run", log, "--target", url(sink), "-o", "r"))
    assert (tmp_path / "r" / "run.json").read_text() == "kept"
    assert "exists" in invoke("import", log, "-o", "r")
    (tmp_path / "access.toml").write_text("kept")
    assert "access.toml exists" in invoke("init", log, "--target", url(sink))
    assert (tmp_path / "access.toml").read_text() == "kept"
    assert sink.arrivals == 0


def test_an_output_that_cannot_be_made(
    command: Command, invoke: Callable[..., str], log: Path, sink: Sink
) -> None:
    to = ["--target", url(sink)]
    inside = ["-o", "access.log/inside"]
    lines = [said(command("run", log, *to, *inside)), invoke("import", log, *inside)]
    for line in [*lines, invoke("init", log, *to, *inside)]:
        assert "access.log/inside" in line and "not a directory" in line.lower()
    assert sink.arrivals == 0


def file_limit(kilobytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))


def test_no_room_for_a_trace(command: Command, tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text(log_text(5000))
    line = said(command("import", "x.log", "-o", "x.trace", preexec_fn=file_limit(64)))
    assert "x.trace" in line
    assert not list(tmp_path.glob("x.trace*"))


def test_no_room_for_a_run(command: Command, tmp_path: Path, sink: Sink) -> None:
    write_trace(tmp_path / "t.trace", [Row(n) for n in range(10)])
    line = said(command("run", "t.trace", "--target", url(sink), "-o", "r", preexec_fn=file_limit(64)))
    assert "r" in line and not (tmp_path / "r").exists()
    assert sink.arrivals <= 1


@pytest.mark.timing
def test_no_room_on_standard_output(command: Command, log: Path) -> None:
    words = [sys.executable, "-m", "replay.cli", "inspect", str(log)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert "no space left" in said(done)


@pytest.mark.timing
def test_a_reader_that_goes_away_is_no_error(log: Path) -> None:
    words = [sys.executable, "-m", "replay.cli", "inspect", str(log)]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert "Traceback" not in done.stderr and "crashed" not in done.stderr


def test_too_few_file_descriptors(command: Command, tmp_path: Path, sink: Sink) -> None:
    write_trace(tmp_path / "t.trace", [Row(n) for n in range(10)])

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    line = said(command("run", "t.trace", "--target", url(sink), "-c", "200", "-o", "r", preexec_fn=few))
    assert "ulimit -n" in line and not (tmp_path / "r").exists()


@pytest.mark.timing
def test_a_log_becomes_a_run_and_its_report(command: Command, log: Path, tmp_path: Path, sink: Sink) -> None:
    done = command(
        "run", log, "--target", url(sink), "-o", "r", "--speed", "40", "-H", "Authorization: Bearer $TOKEN",
        env={"TOKEN": "hunter2hunter2"},
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    accounts = json.loads((tmp_path / "r" / "run.json").read_text())["accounts"]
    assert accounts["planned"] == accounts["sent"] == accounts["ok"] == 40
    assert sink.arrivals >= 40
    assert "Plan" in done.stdout and "GET /users/{id}" in done.stdout
    assert not list(tmp_path.glob(".r.*"))
    assert not any(b"hunter2" in path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file())
    again = command("report", "r")
    assert again.returncode == 0 and "40" in again.stdout


@pytest.mark.timing
def test_a_dry_run_prints_the_plan_and_sends_nothing(
    command: Command, log: Path, tmp_path: Path, sink: Sink
) -> None:
    done = command("run", log, "--target", url(sink), "--dry-run")
    assert done.returncode == 0 and "GET /users/{id}" in done.stdout
    assert sink.arrivals == 0 and not (tmp_path / "runs").exists()


@pytest.mark.timing
def test_a_scenario_file_is_enough(command: Command, log: Path, tmp_path: Path, sink: Sink) -> None:
    assert command("init", log, "--target", url(sink), "-o", "s.toml").returncode == 0
    done = command(
        "run", "s.toml", "--speed", "40", "-q", "-o", "r", "--slo", "p99<1ns", "--slo", "errors<1% over 2s"
    )
    assert done.returncode in (99, 4), done.stderr
    assert done.stdout == ""
    document = json.loads((tmp_path / "r" / "run.json").read_text())
    assert [outcome["passed"] for outcome in document["slo"]] == [False, True]


@pytest.mark.timing
def test_an_objective_of_a_business_action_in_every_window(
    command: Command, log: Path, tmp_path: Path, sink: Sink
) -> None:
    (tmp_path / "rules.toml").write_text('[actions]\nlooking = ["GET /users/*"]\n')
    assert command("import", log, "--routes", "rules.toml", "-o", "t.trace").returncode == 0
    words = ["run", "t.trace", "--target", url(sink), "--speed", "40", "-q", "-o", "r"]
    slo = 'p99 of "looking" < 1ns over 1s'
    assert command(*words, "--slo", slo).returncode in (99, 4)
    (outcome,) = json.loads((tmp_path / "r" / "run.json").read_text())["slo"]
    assert not outcome["passed"] and outcome["value"] > 0 and outcome["windows"]["count"] >= 1
    said_ = said(command(*words[:-1], "q", "--slo", 'p99 of "lookin" < 1s'))
    assert "'lookin' is not a route of the recording, nor an action (did you mean 'looking'?)" in said_


@pytest.mark.timing
def test_an_interrupt_leaves_a_whole_run(tmp_path: Path, sink: Sink) -> None:
    write_trace(tmp_path / "t.trace", [Row(n * 10_000_000) for n in range(3000)])
    words = [
        sys.executable,
        "-m",
        "replay.cli",
        "run",
        "t.trace",
        "--target",
        url(sink),
        "-o",
        "r",
        "--plain",
    ]
    with subprocess.Popen(
        words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        deadline = time.monotonic() + 60
        while sink.arrivals < 20 and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    document = json.loads((tmp_path / "r" / "run.json").read_text())
    accounts = document["accounts"]
    assert document["interrupted"] and 20 <= accounts["sent"] < 3000
    assert accounts["planned"] == accounts["sent"] + accounts["unsent"]


@pytest.mark.timing
def test_help_imports_no_engine() -> None:
    code = (
        "import sys, replay.cli\n"
        "assert replay.cli.invoke(['--help']) == 0\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(verb in done.stdout for verb in replay.cli.VERBS)


@pytest.mark.parametrize("verb", replay.cli.VERBS)
def test_every_verb_has_its_help(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert replay.cli.invoke([verb, "--help"]) == 0
    assert f"Usage: replay {verb}" in capsys.readouterr().out


def test_what_nobody_foresaw_is_one_line_and_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail() -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr(findings, "findings", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert replay.cli.invoke(["doctor"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "ZeroDivisionError: by nought" in lines[0]
    (written,) = tmp_path.glob("replay-crash-*.log")
    assert str(written) in lines[0] and "Traceback" in written.read_text()
    monkeypatch.setenv("REPLAY_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        replay.cli.invoke(["doctor"])


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "/x"), 2, "/x: no space left"),
        (OSError(24, "Too many open files"), 2, "ulimit -n"),
        (MemoryError(), 2, "memory"),
        (
            ExceptionGroup("g", [ValueError("a"), replay.errors.TargetError("gone", hint="start it")]),
            2,
            "gone (start it)",
        ),
    ],
)
def test_errors_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    word: str,
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(findings, "findings", fail)
    assert replay.cli.invoke(["doctor"]) == code
    assert word in capsys.readouterr().err


def test_the_doctor_looks_at_everything(command: Command) -> None:
    done = command("doctor")
    assert done.returncode == 0
    for name in ("system", "cores", "clock", "timer", "files", "libc", "kernels", "disk"):
        assert name in done.stdout


def test_a_manifest_that_lies_is_no_crash(invoke: Callable[..., str], tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(0), Row(5)])
    manifest = msgspec.json.decode((trace.path / "manifest.json").read_bytes())
    manifest["rows"] = 10**12
    shutil.copytree(trace.path, tmp_path / "u.trace")
    (tmp_path / "u.trace" / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    assert "damaged" in invoke("inspect", "u.trace")


def test_a_name_server_without_a_name_to_look_up_is_refused(invoke: Callable[..., str]) -> None:
    assert "--resolver needs a NAME" in invoke("doctor", "--resolver", "127.0.0.1")
