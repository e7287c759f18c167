"""Several threads of one program use the library from its first call on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from replay.staging.sink import Sink

pytestmark = pytest.mark.whole

PROGRAM = """
import sys, threading, traceback
import replay

log, target, threads = sys.argv[1], sys.argv[2], 4
together, failed = threading.Barrier(threads), []

def use(number):
    try:
        together.wait()
        trace = replay.import_log(log, out=f"t{number}.trace")
        doubled = replay.transform(trace, out=f"u{number}.trace", scale=2)
        replay.inspect(doubled)
        run = replay.run(doubled, target=target, out=f"r{number}", speed=100)
        accounts = replay.load(f"r{number}").document.accounts
        assert run.document.accounts == accounts and accounts.planned == accounts.sent + accounts.unsent == 2 * len(trace)
    except BaseException:
        failed.append(number)
        traceback.print_exc()

workers = [threading.Thread(target=use, args=(number,)) for number in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
sys.exit(len(failed))
"""


def test_threads_that_begin_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Kernels are loaded, and types examined, by whoever comes first; the others wait."""
    line = '10.0.0.{0} - - [30/Nov/2026:18:00:{1:02d} +0000] "GET /items/{0} HTTP/1.1" 200 12\n'
    (tmp_path / "a.log").write_text("".join(line.format(number, number // 10) for number in range(200)))
    with Sink() as sink:
        for attempt in range(2):
            folder = tmp_path / str(attempt)
            folder.mkdir()
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, "../a.log", f"http://127.0.0.1:{sink.port}"],
                cwd=folder, capture_output=True, text=True, timeout=240, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
