"""`--keep-answers` by the real command: what the run folder holds, in both engines, after a kill, and what is refused."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replay.cli.ab import _keeping_answers
from replay.comparison.builds import Build
from replay.results.answers import FORMS, Answers
from replay.settings import scenario as scenarios
from tests import naive_digest
from tests.support.scripted_server import ScriptedServer, answer
from tests.support.trace_data import Row, write_trace

from .test_replay import command, document, run

pytestmark = pytest.mark.whole

ORDER = json.dumps({"id": 7, "token": "secret-1", "lines": [{"sku": "a", "price": 1.50}]}).encode()
ANSWERS = {
    "/json": [
        answer(ORDER, b"Content-Type: application/json\r\nSet-Cookie: sid=1\r\nCache-Control: no-store\r\n")
    ],
    "/gzip": [answer(gzip.compress(ORDER), b"Content-Type: application/json\r\nContent-Encoding: gzip\r\n")],
    "/html": [answer(b"<p>hello</p>", b"Content-Type: text/html\r\n", status=404)],
    "/none": [b"HTTP/1.1 204 No Content\r\n\r\n"],
}
PATHS = list(ANSWERS)


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer(ANSWERS) as made:
        yield made


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    rows = [Row(n * 5_000_000, "GET", PATHS[n % 4].encode(), client=n % 3) for n in range(80)]
    write_trace(tmp_path / "t.trace", rows)
    return tmp_path / "t.trace"


def rows_of(folder: Path) -> list[dict[str, Any]]:
    columns = (
        "client",
        "route",
        "status",
        "type",
        "encoding",
        "length",
        "form",
        "digest",
        "headers",
        "body",
        "cut",
    )
    found: list[dict[str, Any]] = Answers(folder).by_number(*columns).to_pylist()
    return found


def replay_with(
    trace: Path, server: ScriptedServer, out: str, *more: str
) -> subprocess.CompletedProcess[str]:
    target = f"http://127.0.0.1:{server.port}"
    return run("run", trace, "--target", target, "-o", trace.parent / out, "--plain", *more)


def test_both_engines_keep_the_same(trace: Path, server: ScriptedServer) -> None:
    kept = {}
    for engine in ("native", "portable"):
        done = replay_with(trace, server, engine, "--keep-answers", "all", "--engine", engine)
        assert "80 responses kept; 60 bodies; secrets redacted in 40" in " ".join(done.stdout.split()), (
            done.stdout
        )
        kept[engine] = rows_of(trace.parent / engine)
        figures = document(trace.parent / engine)["answers"]
        routes = figures.pop("routes")
        assert figures == {
            "keep": "all", "kept": 80, "bodies": 60, "cut": 0, "redacted": 40, "secrets_kept": False, "dropped": {},
        }  # fmt: skip
    assert kept["native"] == kept["portable"]
    rows = kept["native"]
    assert [row["number"] for row in rows] == list(range(80)) and {row["copy"] for row in rows} == {0}
    assert [FORMS[row["form"]] for row in rows[:4]] == ["json", "json", "html", "none"]
    assert [row["status"] for row in rows[:4]] == [200, 200, 404, 204]
    assert {row["digest"] for row in rows if FORMS[row["form"]] == "json"} == {naive_digest.digest(ORDER)}
    assert rows[0]["headers"] == [{"name": "cache-control", "value": b"no-store"}]
    assert rows[1]["encoding"] == "gzip" and rows[1]["body"] == rows[0]["body"]
    for row in rows:
        assert routes[row["route"]] == f"GET {PATHS[row['number'] % 4]}"
    for path in (trace.parent / "native").rglob("*"):
        assert path.is_dir() or b"secret-1" not in path.read_bytes(), path


def test_without_the_flag_nothing_is_kept(trace: Path, server: ScriptedServer) -> None:
    replay_with(trace, server, "r")
    assert document(trace.parent / "r")["answers"] is None
    assert not (trace.parent / "r" / "answers").exists()


def test_digests_hold_no_bodies_and_a_sample_the_same_in_every_run(
    trace: Path, server: ScriptedServer
) -> None:
    scenario = trace.parent / "s.toml"
    scenario.write_text(
        'trace = "t.trace"\n[answers]\nkeep = "sample"\nsample = "30%"\nheaders = ["set-cookie"]\n'
    )
    target = f"http://127.0.0.1:{server.port}"
    sampled = []
    for name in ("a", "b"):
        run("run", scenario, "--target", target, "-o", trace.parent / name, "--plain")
        sampled.append([row["number"] for row in rows_of(trace.parent / name) if row["body"] is not None])
    assert sampled[0] == sampled[1] and 5 < len(sampled[0]) < 40
    cookies = {header["value"] for row in rows_of(trace.parent / "a") for header in row["headers"]}
    assert cookies == {b"REDACTED"}
    run("run", scenario, "--target", target, "-o", trace.parent / "d", "--plain", "--keep-answers", "digest")
    assert {row["body"] for row in rows_of(trace.parent / "d")} == {None}
    assert [row["digest"] for row in rows_of(trace.parent / "d")] == [
        row["digest"] for row in rows_of(trace.parent / "a")
    ]


def test_passes_and_targets_are_told_apart_by_copy(trace: Path, server: ScriptedServer) -> None:
    replay_with(trace, server, "passes", "--keep-answers", "digest", "--rate", "400/s", "-d", "500ms")
    pairs = [(row["number"], row["copy"]) for row in rows_of(trace.parent / "passes")]
    assert sorted(pairs, key=lambda pair: pair[1]) == [(n % 80, n // 80) for n in range(200)]
    with ScriptedServer(ANSWERS) as other:
        scenario = trace.parent / "two.toml"
        scenario.write_text(
            f'trace = "t.trace"\ntarget = "http://127.0.0.1:{server.port}"\n[answers]\nkeep = "digest"\n'
            f'[[also]]\ntarget = "http://127.0.0.1:{other.port}"\n'
        )
        run("run", scenario, "-o", trace.parent / "two", "--plain")
    rows = rows_of(trace.parent / "two")
    for target in (0, 1):
        mine = [row for row in rows if row["copy"] == target << 24]
        assert [row["number"] for row in mine] == list(range(80))
        assert {row["route"] >= 4 for row in mine} == {bool(target)}
    assert len(rows) == 160


def test_a_killed_run_keeps_what_was_written(tmp_path: Path, server: ScriptedServer) -> None:
    write_trace(tmp_path / "t.trace", [Row(n * 10_000_000, "GET", b"/json") for n in range(3_000)])
    arguments = [
        "run",
        tmp_path / "t.trace",
        "--target",
        f"http://127.0.0.1:{server.port}",
        "-o",
        tmp_path / "r",
    ]
    with subprocess.Popen(
        command(*arguments, "--plain", "-q", "--keep-answers", "all"), stdout=subprocess.DEVNULL
    ) as running:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(tmp_path.glob("r/answers/*.arrow")):
            time.sleep(0.05)
        time.sleep(2.5)
        running.send_signal(signal.SIGKILL)
    run("report", tmp_path / "r")
    found = document(tmp_path / "r")
    assert found["ending"]["how"] == "killed"
    answers, rows = found["answers"], rows_of(tmp_path / "r")
    assert answers["kept"] == answers["bodies"] == len(rows) > 50
    assert answers["redacted"] == len(rows), "each body has a secret"
    assert answers["dropped"].get("late", 0) == found["accounts"]["ok"] - len(rows)


@pytest.mark.parametrize(
    ("settings", "flags", "words"),
    [
        ("", ("--keep-answers", "some"), "none, digest, sample, all"),
        ('headers = ["a b"]', (), "answers.headers[0]"),
        ('body_limit = "9MiB"', (), "answers.body_limit"),
        ('sample = "200%"', (), "answers.sample"),
        ('keeps = "all"', (), "answers.keeps"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, settings: str, flags: tuple[str, ...], words: str
) -> None:
    write_trace(tmp_path / "t.trace", [Row(0)])
    (tmp_path / "s.toml").write_text(f'trace = "t.trace"\n[answers]\n{settings}\n')
    done = run("run", tmp_path / "s.toml", "--target", "http://127.0.0.1:1", *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_kafka_sends_no_responses(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.trace", [Row(0)])
    done = run("run", tmp_path / "t.trace", "--target", "kafka://127.0.0.1:1/t", "--keep-answers", "digest")
    assert done.returncode == 2
    assert (
        "--keep-answers: a Kafka target sends no responses" in done.stderr
        and "--answers TOPIC" in done.stderr
    )


def test_ab_keeps_digests_unless_it_is_told_otherwise() -> None:
    web, kafka = Build("base", "http://127.0.0.1:1"), Build("base", "kafka://127.0.0.1:1/t")
    given = scenarios.Scenario()
    assert _keeping_answers(given, web, web).answers.keep == "digest"
    assert _keeping_answers(given, kafka, kafka).answers.keep is None
    nothing = scenarios.Scenario(answers=scenarios.Answers(keep="none"))
    assert _keeping_answers(nothing, web, web).answers.keep == "none"


def test_help_of_the_verbs_names_the_flag() -> None:
    for verb in ("run", "ab", "peak"):
        done = subprocess.run(
            [sys.executable, "-m", "replay.cli", verb, "--help"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "--keep-answers" in done.stdout
