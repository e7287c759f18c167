"""`replay serve`: the list, a run's page, a comparison; and a folder whose content somebody else has written."""

from __future__ import annotations

import html
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from replay.engine.recording import Recording
from replay.results.document import Ending
from replay.results.folder import RunFolder
from replay_native.ledger import lane_metrics
from tests.support.compare_data import TRACE
from tests.support.metrics_data import Lane, at_s, started

NASTY = "GET /</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
SECRET = "nobody-may-read-this"


def make_run(path: Path, seed: int = 1, is_killed: bool = False, **more: object) -> None:
    """A run of three seconds that has a run.json; one that was killed has it since it was completed."""
    start = started(routes=[NASTY, "POST /b", "GET /c"], trace=TRACE, **more)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = RunFolder.create(path)
    metrics = lane_metrics.create(folder.lane(0), 3, lane_metrics.ARENA_BYTES, 0)
    lane, recording = Lane(metrics), Recording(folder, [metrics], start)
    for second in range(3):
        lane.many(40, seed=10 * seed + second)
        recording.tick(at_s(second + 1))
    recording.finish(at_s(3.5), ending=Ending(how="killed" if is_killed else "whole"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good runs, one below another folder, one that is damaged, and what a hostile folder may have."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.json").write_text(json.dumps({"target": SECRET}))
    make_run(outside / "run")
    made = tmp_path_factory.mktemp("served") / "runs"
    make_run(made / "one", 1, build="b1")
    make_run(made / "three", 6, build="b2")
    make_run(made / "peak" / "two", 2)
    make_run(made / "completed", 4, is_killed=True)
    make_run(made / "linked-answers", 5)
    (made / "linked-answers" / "answers").mkdir()
    (made / "linked-answers" / "answers" / "answers-000000.arrow").symlink_to(outside / "secret.json")
    make_run(made / "linked-log", 3)
    (made / "linked-log" / "timeline.jsonl").unlink()
    (made / "linked-log" / "timeline.jsonl").symlink_to(outside / "secret.json")
    trial = {"load": 2.5, "rate_per_s": 1234.0}
    (made / "peak" / "peak.json").write_text(json.dumps({"verdict": "FOUND", "peak": 2.5, "trials": [trial]}))
    (made / "odd").mkdir()
    (made / "odd" / "peak.json").write_text(json.dumps({"verdict": NASTY, "peak": 1e300, "trials": []}))
    os.utime(made / "odd" / "peak.json", (1, 400_000_000_000))
    (made / "wrong").mkdir()
    (made / "wrong" / "peak.json").write_text(json.dumps({"verdict": [SECRET], "peak": "x"}))
    (made / "linked-peak").mkdir()
    (made / "linked-peak" / "peak.json").symlink_to(made / "peak" / "peak.json")
    (made / "linked-run").symlink_to(outside / "run")
    (made / "linked-document").mkdir()
    (made / "linked-document" / "run.json").symlink_to(outside / "run" / "run.json")
    (made / "damaged").mkdir()
    (made / "damaged" / "run.json").write_text('{"target": "<script>alert(3)</script>"}')
    (made / "pipe").mkdir()
    os.mkfifo(made / "pipe" / "run.json")
    (made / "one" / "report.html").write_text(f"<script>alert('{SECRET}')</script>")
    (made / "index.html").write_text(SECRET)
    return made


@pytest.fixture(scope="module")
def port(root: Path) -> Iterator[int]:
    """The command, serving."""
    words = [sys.executable, "-m", "replay.cli", "serve", str(root), "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:(\d+)/", line := process.stdout.readline())
    assert found, line
    yield int(found[1])
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), {name.lower(): value for name, value in answer.getheaders()}


def test_it_lists_runs_and_follows_no_link(port: int) -> None:
    status, page, headers = ask(port, "/")
    assert status == 200
    listed = [html.unescape(name) for name in re.findall(r'name="base" value="([^"]*)"', page)]
    assert sorted(listed) == ["completed", "linked-answers", "linked-log", "one", "peak/two", "three"]
    assert "damaged" in page and "UNREADABLE" in page
    assert "linked-run" not in page and "linked-document" not in page and "pipe" not in page
    assert "<script>alert" not in page and SECRET not in page
    assert "unsafe" not in headers["content-security-policy"]
    assert "form-action 'self'" in headers["content-security-policy"]
    assert "set-cookie" not in headers


def test_a_name_that_is_not_utf8_does_not_cost_the_list(port: int, root: Path) -> None:
    bad = root / os.fsdecode(b"odd-\xff")
    make_run(bad)
    try:
        status, page, _ = ask(port, "/")
        assert (status, "odd-" in page) == (200, True)
        assert ask(port, "/trends")[0] == 200
    finally:
        shutil.rmtree(bad)


def test_searches_are_listed(port: int) -> None:
    peaks = ask(port, "/")[1].partition("<h2>Peaks</h2>")[2]
    assert "FOUND" in peaks and "2.5×" in peaks and "1,234/s" in peaks
    assert "odd" in peaks and "<script>alert" not in peaks
    assert "wrong" not in peaks and "linked-peak" not in peaks and SECRET not in peaks


def test_the_list_can_be_filtered(port: int) -> None:
    assert re.findall(r'name="base" value="([^"]*)"', ask(port, "/?q=TWO")[1]) == ["peak/two"]
    status, page, _ = ask(port, "/?q=" + quote('"><script>alert(9)</script>'))
    assert status == 200 and "<script>alert(9)" not in page and "No runs to show." in page


def test_a_page_of_a_run_is_made_anew(port: int) -> None:
    status, page, _ = ask(port, "/run?name=peak%2Ftwo")
    assert status == 200
    assert "<h2>Accounts</h2>" in page and page.count("<figure>") >= 4
    assert "<script>alert" not in page and "<img" not in page
    assert SECRET not in ask(port, "/run?name=one")[1]


def test_a_killed_run_that_was_completed_has_a_page(port: int) -> None:
    row = next(row for row in ask(port, "/")[1].split("<tr") if "completed" in row)
    assert "KILLED" in row and 'href="/run?name=completed"' in row
    assert ask(port, "/run?name=completed")[0] == 200


@pytest.mark.parametrize(
    "name",
    ["", "nothing", "../outside/run", "..", ".", "one/../one", "/etc", "one/", "./one", "linked-run", "linked-document",
     "linked-log", "linked-answers", "damaged", "pipe", "one/run.json", "one\0", "<script>alert(4)</script>"],
)  # fmt: skip
def test_what_is_no_run_of_the_list_is_not_found(port: int, name: str) -> None:
    status, page, _ = ask(port, f"/run?name={quote(name, safe='')}")
    assert status == 404
    assert SECRET not in page and "<script>alert" not in page and "Traceback" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/one/report.html",
        "/index.html",
        "/../secret.json",
        "/%2e%2e/secret.json",
        "/one",
        "/runs",
        "//etc/passwd",
    ],
)
def test_no_file_of_the_folder_is_sent(port: int, path: str) -> None:
    status, page, _ = ask(port, path)
    assert status == 404
    assert SECRET not in page


def test_two_groups_are_compared(port: int) -> None:
    status, page, _ = ask(port, "/compare?base=one&new=peak%2Ftwo")
    assert status == 200
    assert "new against base" in page
    assert "<script>alert" not in page
    assert ask(port, "/compare?base=one")[0] == 404
    assert ask(port, "/compare?base=one&new=..%2Frun")[0] == 404
    assert ask(port, "/compare?base=one&new=linked-answers")[0] == 404


def test_trends_are_shown_and_builds_compared(port: int) -> None:
    status, page, _ = ask(port, "/trends")
    assert status == 200 and "<h1>Trends</h1>" in page
    assert "<script>alert" not in page and SECRET not in page and "linked-run" not in page
    assert ">one<" in page
    (load,) = set(re.findall(r'name="load" value="([^"]*)"', page)) or {""}
    assert ask(port, f"/builds?load={load}&base=b1&new=%3Cscript%3Ealert(5)")[0] == 404
    status, page, _ = ask(port, f"/builds?load={load}&base=b1&new=b2")
    assert status == 200 and "new against base" in page


def test_another_host_another_origin_and_another_method_are_refused(port: int) -> None:
    assert ask(port, "/", Host="evil.example")[0] == 421
    assert ask(port, "/", Origin="http://evil.example")[0] == 403
    assert ask(port, "/", "POST")[0] == 405
    assert ask(port, "/", Host="localhost:1")[0] == 200


def test_a_folder_that_is_none_and_a_port_in_use_are_named(port: int, tmp_path: Path, root: Path) -> None:
    for words, said in (
        ([str(tmp_path / "none")], "is not a folder"),
        ([str(root), "--port", str(port)], "is in use"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "replay.cli", "serve", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert said in done.stderr
