"""Notifications: what is posted, when, how often; and that neither a web hook nor its URL gets in the way or out."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from replay.errors import LimitError, UsageError
from replay.notify import post
from replay.notify.messages import Notifications, escaped
from replay.notify.post import Poster, web_hooks
from replay.plan.safety import allowed_hosts
from replay.results.deltas import Deltas
from replay.settings.file import load
from replay.staging.sink import Sink
from tests.live_page.test_server import run_into
from tests.support.trace_data import Row, write_trace

SECRET = "T0P-SECRET"
NOBODY = allowed_hosts([])


class Hook:
    """A web hook that keeps what it is posted. `statuses` are its answers in turn, the last one for ever; 0 hangs."""

    def __init__(self, statuses: list[int]) -> None:
        self.posts: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.tries = 0
        self.leave = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status = statuses[min(hook.tries, len(statuses) - 1)]
                hook.tries += 1
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if not status:
                    hook.leave.wait(30)
                    return
                if status < 300:
                    assert self.headers["Content-Type"] == "application/json"
                    hook.posts.append(json.loads(data))
                    hook.paths.append(self.path)
                self.send_response(status)
                if status in (301, 307):
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hooks/{SECRET}?key={SECRET}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.leave.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook([200])
    yield made
    made.close()


def posted(statuses: list[int], count: int = 1) -> tuple[Hook, str, float]:
    """Post to a hook that answers so; what was lost in words, and how long the last call took."""
    made = Hook(statuses)
    try:
        poster = Poster(web_hooks([made.url], NOBODY), NOBODY)
        for number in range(count):
            poster.send({"text": str(number)})
        begin = time.monotonic()
        lost = poster.close()
        return made, lost, time.monotonic() - begin
    finally:
        made.close()


def test_it_is_tried_again_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "PAUSE_S", 0.01)
    made, lost, _ = posted([500, 503, 200], 1)
    assert (made.tries, len(made.posts), lost) == (3, 1, "")
    made, lost, _ = posted([500])
    assert made.tries == post.TRIES
    assert lost == "--notify: 1 of 1 message not delivered: 127.0.0.1 answered 500"


@pytest.mark.parametrize("status", [404, 301, 307, 410])
def test_an_answer_that_is_final_is_not_tried_again_and_no_redirect_is_followed(status: int) -> None:
    made, lost, _ = posted([status])
    assert made.tries == 1
    assert lost.endswith(f"127.0.0.1 answered {status}")


def test_a_web_hook_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(post, "TRY_S", 0.2)
    monkeypatch.setattr(post, "PAUSE_S", 0.01)
    monkeypatch.setattr(post, "LEAVE_S", 1.0)
    made = Hook([0])
    poster = Poster(web_hooks([made.url], NOBODY), NOBODY)
    begin = time.monotonic()
    for number in range(100):
        poster.send({"text": str(number)})
    assert time.monotonic() - begin < 0.2
    lost = poster.close()
    assert "100 of 100 messages not delivered" in lost
    assert SECRET not in lost
    made.close()


def test_hosts_need_to_be_allowed_and_no_error_quotes_the_url() -> None:
    secret = f"https://192.0.2.1/{SECRET}"
    with pytest.raises(LimitError, match=r"192\.0\.2\.1 is beyond this machine") as refused:
        web_hooks([secret], NOBODY)
    assert SECRET not in str(refused.value) + refused.value.hint
    assert web_hooks([secret], allowed_hosts(["192.0.2.0/24"]))[0].host == "192.0.2.1"
    for wrong in (f"ftp://127.0.0.1/{SECRET}", f"127.0.0.1/{SECRET}", f"http:///{SECRET}", f"http://127.0.0.1:x/{SECRET}",
                  f"http://127.0.0.1/{SECRET} x", f"http://127.0.0.1:99999/{SECRET}"):  # fmt: skip
        with pytest.raises(UsageError) as wrong_url:
            load(None, {"target": "http://127.0.0.1:1", "notify": [wrong]}, {"notify": "--notify"})
        assert SECRET not in str(wrong_url.value) + wrong_url.value.hint, wrong
    with pytest.raises(UsageError, match="NOT_SET is not set"):
        web_hooks(["$NOT_SET"], NOBODY, {})
    assert web_hooks(["$HOOK"], NOBODY, {"HOOK": f"http://127.0.0.1/{SECRET}"})[0].host == "127.0.0.1"
    assert SECRET not in repr(web_hooks([f"http://127.0.0.1/{SECRET}"], NOBODY))


def test_the_saved_scenario_does_not_hold_it() -> None:
    scenario = load(None, {"target": "http://127.0.0.1:1", "notify": [f"http://127.0.0.1/{SECRET}"]}, {})
    assert scenario.saved()["notify"] == ["given"]


def test_start_first_breach_recovery_and_end(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []
    notifications = Notifications(sent.append)
    run_into(tmp_path / "a", notifications, slo=["p99<1us", "errors<100%"])
    run_into(tmp_path / "b", notifications, slo=["p99<10s"])
    run_into(tmp_path / "c", notifications, slo=["p99<1us"])
    notifications.finish()
    assert [message["event"] for message in sent] == ["start", "breach", "recovery", "end"]
    assert sent[1]["slo"] == ["p99<1us"]
    assert "the last of 3 runs" in sent[3]["text"]
    assert all(message["text"].startswith("replay: ") for message in sent)


def test_names_of_others_are_text() -> None:
    assert escaped("<!channel> & <http://x|y>\x1b") == "&lt;!channel&gt; &amp; &lt;http://x|y&gt;\\x1b"


def test_deltas_without_events_have_none() -> None:
    assert Deltas().events == ()


@pytest.mark.whole
def test_the_command_posts_and_keeps_the_secret(tmp_path: Path, hook: Hook) -> None:
    write_trace(tmp_path / "t.trace", [Row(n * 10_000_000) for n in range(300)])
    with Sink(capacity=5_000) as target:
        words = [
            sys.executable, "-m", "replay.cli", "run", str(tmp_path / "t.trace"), "--target",
            f"http://127.0.0.1:{target.port}", "-o", str(tmp_path / "run"), "--notify", hook.url, "--slo", "p50<1us",
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, timeout=90, check=False)
    assert done.returncode in (4, 99), done.stderr
    assert [each["event"] for each in hook.posts] == ["start", "breach", "end"]
    verdict = json.loads((tmp_path / "run" / "run.json").read_text())["validity"]["verdict"]
    assert hook.posts[2]["verdict"] == verdict
    assert hook.paths[0] == f"/hooks/{SECRET}?key={SECRET}"
    kept = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert SECRET.encode() not in kept + done.stdout + done.stderr


@pytest.mark.whole
def test_a_web_hook_that_is_gone_is_reported_and_the_run_stays_good(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.trace", [Row(n * 10_000_000) for n in range(100)])
    with Sink(capacity=5_000) as target:
        words = [
            sys.executable, "-m", "replay.cli", "run", str(tmp_path / "t.trace"), "--target",
            f"http://127.0.0.1:{target.port}", "-o", str(tmp_path / "run"), "--notify", f"http://127.0.0.1:1/{SECRET}", "-q",
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, timeout=90, check=False)
    assert done.returncode in (0, 4), done.stderr
    assert b"--notify: 2 of 2 messages not delivered: 127.0.0.1: connection refused" in done.stderr
    assert SECRET.encode() not in done.stderr
