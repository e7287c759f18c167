"""A signal before the load: from the entry point on it ends the command, and nothing is sent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay.cli.interrupts import INTERRUPTED
from replay.errors import Exit
from replay.staging.sink import Sink
from tests.support.trace_data import Row, write_trace

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

AT_AN_IMPORT = """
    import os, sys
    module, number = sys.argv[1], int(sys.argv[2])
    class Finder:
        def find_spec(self, name, path=None, target=None):
            global module
            if name == module:
                module = ""
                os.kill(os.getpid(), number)
    sys.meta_path.insert(0, Finder())
    from replay.cli import main
    sys.argv = ["replay", *sys.argv[3:]]
    main()
"""
"""Sends a signal to itself when a module is imported: an instant of the start that every machine has."""

MOMENTS = (
    "replay.cli.streams", "click", "replay.cli.commands", "replay.cli.run", "numpy", "rich", "trio", "numba",
    "replay_native.lane.loop", "replay.engine.nursery", "replay.plan.schedule", "replay.report.plan",
    "replay.protocols.kafka", "replay.report.live",
)  # fmt: skip


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    with Sink(capacity=20_000) as made:
        yield made


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    write_trace(tmp_path / "t.trace", [Row(n * 10_000_000) for n in range(500)])
    return tmp_path / "t.trace"


def in_the_background(words: list[str], ignored: bool = True, name: str = "INT") -> list[str]:
    """As a shell without job control starts what it runs with `&`: with SIGINT ignored."""
    return ["sh", "-c", f'trap "" {name}; exec "$@"', "sh", *words] if ignored else words


def at_an_import(
    folder: Path, module: str, number: int, *words: str, ignored: bool = False
) -> subprocess.CompletedProcess[str]:
    started = [sys.executable, "-c", textwrap.dedent(AT_AN_IMPORT), module, str(int(number)), *words]
    return subprocess.run(
        in_the_background(started, ignored),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_exit_code_is_that_of_an_interrupt() -> None:
    assert INTERRUPTED == Exit.INTERRUPTED


@pytest.mark.timing
@pytest.mark.whole
@pytest.mark.parametrize("module", MOMENTS)
def test_a_signal_while_a_run_starts_sends_nothing(module: str, sink: Sink, trace: Path) -> None:
    number, ignored = SIGNALS[MOMENTS.index(module) % 3], MOMENTS.index(module) % 2 == 0
    words = ("run", "t.trace", "--target", f"http://127.0.0.1:{sink.port}", "--plain", "-o", "r")
    before = sink.arrivals
    done = at_an_import(trace.parent, module, number, *words, ignored=ignored)
    assert done.returncode == 130, done.stderr
    assert done.stderr.split("\n")[-2:] == ["replay: interrupted", ""] and "Traceback" not in done.stderr
    assert sink.arrivals == before
    assert [path.name for path in trace.parent.iterdir()] == ["t.trace"]


@pytest.mark.timing
@pytest.mark.whole
@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("replay.cli.import_", ("import", "x.log")),
        ("numpy", ("inspect", "t.trace")),
        ("replay.cli.generate", ("generate", "-o", "g.trace", "-d", "9s", "--poisson", "5/s")),
        ("numba", ("transform", "t.trace", "-o", "g.trace", "--scale", "2")),
        ("pyarrow", ("export", "t.trace", "-o", "t.csv")),
        ("replay.cli.init", ("init", "t.trace", "--target", "http://127.0.0.1:1", "-o", "s.toml")),
        ("replay.cli.report", ("report", "r")),
        ("numba", ("peak", "t.trace", "--target", "http://127.0.0.1:1")),
        ("replay.cli.compare", ("compare", "a", "b")),
        ("numba", ("ab", "t.trace", "--base", "x {port}", "--new", "y {port}")),
        ("replay.cli.record", ("record", "kafka://127.0.0.1:1/t", "-o", "g.trace")),
        ("replay.cli.demo", ("demo",)),
        ("replay.cli.doctor", ("doctor",)),
    ],
)
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_ends_every_verb(module: str, words: tuple[str, ...], ignored: bool, trace: Path) -> None:
    done = at_an_import(trace.parent, module, signal.SIGINT, *words, ignored=ignored)
    assert done.returncode == 130, done.stderr
    assert done.stderr.split("\n")[-2:] == ["replay: interrupted", ""] and "Traceback" not in done.stderr


@pytest.mark.timing
@pytest.mark.whole
@pytest.mark.parametrize(
    "words", [[sys.executable, "-m", "replay.cli"], [str(Path(sys.executable).with_name("replay"))]]
)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_any_moment_sends_nothing_or_leaves_a_run(
    words: list[str], number: signal.Signals, sink: Sink, trace: Path
) -> None:
    """The plan on standard output says how far the command is."""
    if not Path(words[0]).exists():
        pytest.skip("the console script is not installed")
    folder = trace.parent
    given = ["run", "t.trace", "--target", f"http://127.0.0.1:{sink.port}", "--plain"]
    for turn, delay_s in enumerate((0.0, 0.15, 0.5)):
        before, out = sink.arrivals, f"r{turn}"
        started = in_the_background([*words, *given, "-o", out], turn % 2 == 1)
        with subprocess.Popen(
            started, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            if turn == 2:
                process.stdout.readline()
            else:
                _wait_for_handlers(process.pid)
            time.sleep(delay_s)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in errors, errors
        if sink.arrivals > before:
            assert (folder / out / "run.json").exists()
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def _wait_for_handlers(pid: int) -> None:
    """Until the process catches SIGTERM: the command has been entered."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        if caught & 1 << (signal.SIGTERM - 1):
            return
        time.sleep(0.002)


@pytest.mark.timing
@pytest.mark.whole
def test_nohup_is_left_alone(trace: Path) -> None:
    code = "import signal; from replay.cli import interrupts; interrupts.prepare(); signal.raise_signal(signal.SIGHUP)"
    words = in_the_background([sys.executable, "-c", code + "; print('goes on')"], name="HUP")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr


@pytest.mark.timing
def test_python_forgets_an_interrupt_that_was_handled(tmp_path: Path) -> None:
    """One that left an `exec` would end `python -m` by SIGINT, in place of the exit code."""
    (tmp_path / "ended.py").write_text(
        textwrap.dedent("""
            import sys
            from replay.cli import interrupts
            interrupts.prepare()
            try:
                exec("import signal; signal.raise_signal(signal.SIGINT)")
            except KeyboardInterrupt:
                pass
            interrupts.settle()
            sys.exit(130)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "ended"], env=environment, timeout=60, check=False)
    assert done.returncode == 130


@pytest.mark.timing
@pytest.mark.whole
def test_an_interrupt_ends_the_compilers_of_the_kernels(tmp_path: Path, trace: Path) -> None:
    """With an empty cache of kernels."""
    words = [sys.executable, "-m", "replay.cli", "run", "t.trace", "--target", "http://127.0.0.1:1"]
    with subprocess.Popen(
        words,
        cwd=trace.parent,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "REPLAY_CACHE": str(tmp_path)},
    ) as process:
        children: list[int] = []
        deadline = time.monotonic() + 60
        while not children and process.poll() is None and time.monotonic() < deadline:
            children = _children(process.pid)
            time.sleep(0.01)
        assert children, "it compiles in processes of their own"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors, errors
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
