"""`replay demo`: an hour of a fitness app's evening traffic in half a minute, against a built-in service."""

from __future__ import annotations

import contextlib
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from replay.errors import Exit, UsageError
from replay.report.console import Console
from replay.report.page import Page

from .options import out_option
from .places import RUNS, result_folder
from .run import replay_recordings, report_console_for

SPEED = 120.0
SEED = 1

SCENARIO = """\
target = "http://127.0.0.1:{port}"
speed = {speed}
methods = "all"
slo = ["errors < 1%", "p99 < 250ms", "p50 < 1ms"]

[[body]]
route = "POST /v1/auth/login"
template = '{{"email": "{{email}}", "password": "example"}}'

[[body]]
route = "POST /v1/users"
template = '{{"id": "{{uuid}}", "email": "{{email}}"}}'

[[body]]
route = "*"
template = '{{"client": {{client}}, "number": {{n}}}}'

[actions]
registration = ["POST /v1/users"]
payment = ["POST /v1/payment/orders"]

[values]
registration = "9.99 EUR"
payment = "9.99 EUR"

[[watch]]
name = "requests in flight"
json = "http://127.0.0.1:{port}/figures"
pointer = "/requests/in_flight"

[[watch]]
name = "queue"
json = "http://127.0.0.1:{port}/figures"
pointer = "/queue/length"

[[watch]]
name = "workers busy"
json = "http://127.0.0.1:{port}/figures"
pointer = "/workers/busy"
"""


KAFKA_SCENARIO = """\
target = "kafka://{broker}/evening"
speed = {speed}
methods = "all"
slo = ["errors < 1%", "p99 < 250ms", "p50 < 1us"]
"""

INVALID_HERE = (
    "INVALID: this machine was too busy to send on time, so the figures do not describe the service."
)

MOCK = "librdkafka's mock cluster in this process, which is not a real broker and writes nothing to disk"


@contextlib.contextmanager
def mock_cluster() -> Iterator[str]:
    """Start the embedded broker and yield its address. UsageError if its package is missing."""
    try:
        from confluent_kafka import Producer
    except ImportError:
        raise UsageError(
            "the embedded broker needs the package confluent-kafka", hint="pip install 'replay-engine[demo]'"
        ) from None
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock", "log_level": 3})
    broker = next(iter(cluster.list_topics(timeout=10).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    del cluster


@click.command(name="demo", short_help="Replay a small example against a built-in service.")
@out_option("Folder for the run [default: runs/evening-TIME].")
@click.option(
    "--kafka", is_flag=True, help="Send events to an embedded Kafka broker instead; needs confluent-kafka."
)
@click.option("--plain", is_flag=True, help="Disable colours and the live view.")
def command(out: Path | None, kafka: bool, plain: bool) -> None:
    """Replay an hour of a fitness app's evening, with its 6 PM peak, in half a minute.

    Its objectives are examples, and one is always missed. Unlike `replay run`, the demo exits with 0 even then.
    """
    from replay.settings.file import load
    from replay.staging import service
    from replay.staging.evening import log_lines

    console = report_console_for(plain, quiet=False)
    console.print(
        "An evening of a fitness app, 17:30 to 18:30, in 30 seconds: everyone trains at 6 PM.", style="bold"
    )
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(result_folder(out, RUNS, "evening"))
        area = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replay-demo-")))
        if kafka:
            console.print(f"The requests are sent as events to {MOCK}.")
            text = KAFKA_SCENARIO.format(broker=stack.enter_context(mock_cluster()), speed=SPEED)
        else:
            text = SCENARIO.format(port=stack.enter_context(service.running(SEED)), speed=SPEED)
        log, scenario_file = area / "evening.log", area / "evening.toml"
        log.write_text("".join(line + "\n" for line in log_lines(SEED)))
        scenario_file.write_text(text)
        scenario = load(scenario_file, {}, {})
        code = replay_recordings(scenario, [str(log)], folder, area, console, plain)
        if kafka:
            console.print(f"The broker was {MOCK}.", style="yellow")
    if code not in (Exit.PASSED, Exit.FAILED, Exit.INVALID):
        raise SystemExit(code)
    print_next(folder, code, console)


def print_next(folder: Path, code: int, console: Console) -> None:
    """Print what the verdict means for the demo, and the next commands to try."""
    page = Page(console)
    page.title("Next")
    if code == Exit.INVALID:
        page.say(INVALID_HERE, "yellow")
    else:
        page.say("The missed objective above is an example: `replay run` would end with exit code 99.")
    for what, line in (
        ("your own log", "replay run access.log --target http://127.0.0.1:8080"),
        ("this report as a page", f"replay report {shlex.quote(str(folder))} --html=report.html"),
        ("this report again", f"replay report {shlex.quote(str(folder))}"),
        ("that evening's failures", "replay rehearse"),
    ):
        page.parts([(f"{what + ':':<26}", "cyan"), (line, "")])
