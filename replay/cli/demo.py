"""`replay demo`: an evening of a fitness app, half an hour of it a quarter minute, onto a built-in service."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from ..errors import EngineError
from .run import new_run_folder, replay_recordings, report_console_for

SPEED = 120.0
SEED = 1

SCENARIO = """\
target = "http://127.0.0.1:{port}"
speed = {speed}
methods = "all"
slo = ["p99 < 250ms", "errors < 1%"]

[[body]]
route = "POST /v1/auth/login"
template = '{{"email": "{{email}}", "password": "example"}}'

[[body]]
route = "POST /v1/users"
template = '{{"id": "{{uuid}}", "email": "{{email}}"}}'

[[body]]
route = "*"
template = '{{"client": {{client}}, "number": {{n}}}}'
"""


@contextlib.contextmanager
def staging_service(seed: int) -> Iterator[int]:
    """The built-in service in a process of its own; its port. It ends with the context, or with this process."""
    command = [sys.executable, "-m", "replay.staging.service", "--seed", str(seed)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise EngineError("the built-in service did not start", hint="its message is above")
        yield int(port)
    finally:
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
        process.stdout.close()


@click.command(name="demo", short_help="Replay a small evening onto a built-in service.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="The run's folder [default: runs/evening-TIME]."
)
@click.option("--plain", is_flag=True, help="No colours, no live view.")
def command(out: Path | None, plain: bool) -> None:
    """Replay an hour of a fitness app's evening, with its 6 PM peak, in half a minute: no other software needed."""
    from ..scenario_file import load
    from ..staging.evening import log_lines

    console = report_console_for(plain, quiet=False)
    console.print(
        "An evening of a fitness app, 17:30 to 18:30, in 30 seconds: everyone trains at 6 PM.", style="bold"
    )
    folder = new_run_folder(out, ["evening.log"])
    with tempfile.TemporaryDirectory(prefix="replay-demo-") as name, staging_service(SEED) as port:
        area = Path(name)
        log, scenario_file = area / "evening.log", area / "evening.toml"
        log.write_text("".join(line + "\n" for line in log_lines(SEED)))
        scenario_file.write_text(SCENARIO.format(port=port, speed=SPEED))
        scenario = load(scenario_file, {}, {})
        code = replay_recordings(scenario, [str(log)], folder, area, console, plain)
    raise SystemExit(code)
