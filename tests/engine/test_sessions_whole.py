"""The example of docs/sessions.md, run by both engines against the built-in service, which refuses who has no good token."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from replay.plan.schedule import make_schedule
from replay.results.document import RunDocument
from replay.settings.file import load
from tests.support.places import ROOT
from tests.support.runs import run_blocking
from tests.support.trace_data import Row, write_trace

pytestmark = pytest.mark.whole

PAGE = ROOT / "docs" / "sessions.md"
MS = 1_000_000
CLIENTS = 12
VISIT = [
    ("POST", b"/v1/users"), ("POST", b"/v1/auth/login"), ("GET", b"/v1/training/plans?page=1"),
    ("POST", b"/v1/training/sessions"), ("POST", b"/v1/payment/orders"), ("GET", b"/v1/training/plans"),
]  # fmt: skip


def example() -> str:
    found = re.search(r"<!-- example -->\n```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


@contextmanager
def service(*flags: str) -> Iterator[str]:
    command = [sys.executable, "-m", "replay.staging.service", "--sessions", *flags]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


def run(tmp_path: Path, target: str, rows: list[Row], engine: str, text: str = "") -> RunDocument:
    path = tmp_path / "s.toml"
    path.write_text(text or example())
    scenario = load(path, {"target": target, "engine": engine})
    schedule = make_schedule(write_trace(tmp_path / "t.trace", rows), scenario)
    return run_blocking(schedule, scenario, tmp_path / "run")


def visits(clients: int = CLIENTS) -> list[Row]:
    """Everybody does the same, all at once, faster than they are answered."""
    return [
        Row((20 * step + client) * MS, *VISIT[step], client=client, status=200)
        for step in range(len(VISIT))
        for client in range(clients)
    ]


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_people_register_log_in_train_and_pay_and_nobody_is_refused(tmp_path: Path, engine: str) -> None:
    with service() as target:
        document = run(tmp_path, target, visits(), engine)
    accounts, sessions = document.accounts, document.sessions
    assert accounts.planned == accounts.ok == CLIENTS * len(VISIT)
    assert document.accounts_detail.status_class["4xx"] == 0
    assert sessions is not None
    assert (sessions.checked, sessions.mismatches) == (CLIENTS * len(VISIT), 0)
    assert [(rule.good, rule.missed) for rule in sessions.rules[:2]] == [(CLIENTS, 0), (CLIENTS, 0)]
    assert all(objective.passed for objective in document.slo)


@pytest.mark.timing
@pytest.mark.parametrize("engine", ["native", "portable"])
def test_a_token_that_is_stale_is_refused_and_who_has_none_asks_nothing(tmp_path: Path, engine: str) -> None:
    # Client 0 never logs in. The tokens of the other two have expired before they use them.
    rows = [row for row in visits(3) if row.client or row.target != VISIT[1][1]]
    late = [
        row if row.target in (VISIT[0][1], VISIT[1][1]) else row._replace(at_ns=row.at_ns + 400 * MS)
        for row in rows
    ]
    with service("--token-lifetime", "0.05") as target:
        document = run(tmp_path, target, late, engine)
    assert document.accounts.ok == 3 + 2 + 8
    assert document.accounts_detail.unsent["capture"] == document.accounts.unsent == 4
    assert document.accounts_detail.status_class["4xx"] == 8
    assert document.sessions is not None and document.sessions.mismatches == 8
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    mismatched = [sample for sample in samples if sample["kind"] == "mismatched"]
    assert [(sample["status"], sample["rule"]) for sample in mismatched] == [
        (401, "check status 2xx, 503")
    ] * 8
    assert [objective.passed for objective in document.slo] == [False, False]
