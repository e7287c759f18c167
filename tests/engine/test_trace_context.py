"""`--traceparent` by the real command: what the target gets, and what reports say of it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from replay.cli import invoke
from replay.errors import Exit, UsageError
from replay.plan.schedule import make_schedule
from replay.protocols.registry import unused_settings
from replay.report.run_page import write_run_page
from replay.results.document import RouteStart
from replay.results.run import load_run
from replay.results.traces import seed_of, trace_id
from replay.settings.file import load
from replay.settings.trace_url import link_of, url_problem
from replay.trace import Trace, TraceWriter
from tests import naive_trace_context as naive
from tests.plan.test_render import empty_feed, pushed, render
from tests.support.http_plan import checked, render_of
from tests.support.metrics_data import at_s, trial
from tests.support.scripted_server import ScriptedServer

OLD = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"
RECORDED = ((b"X-A", b"1"), (b"Traceparent", OLD), (b"traceSTATE", b"x=1"), (b"baggage", b"k=v"))
URL = "https://tracing.example/t/{trace_id}?a=1&b=2"
RAN = (Exit.PASSED, Exit.INVALID)
"""Exit codes of a run that sent everything: on a busy machine it may have sent it late."""

OK = [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]


def recorded_trace(path: Path, rows: int = 12) -> Trace:
    with TraceWriter(path) as writer:
        ids = [
            writer.add_request("GET", b"/a?q=1", headers=RECORDED),
            writer.add_request("POST", b"/b", headers=RECORDED, body=b"traceparent: 00-"),
        ]
        number = np.arange(rows)
        writer.add_events(
            number.astype(np.int64) * 20_000_000,
            np.array(ids, np.uint32)[number % 2],
            (number % 3).astype(np.uint32),
        )
    assert writer.trace is not None
    return writer.trace


def header(request: bytes, name: bytes) -> list[bytes]:
    head = request.partition(b"\r\n\r\n")[0]
    return re.findall(rb"(?mi)^%s: (.*?)\r?$" % name, head)


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_the_target_gets_one_valid_context_per_request_and_the_report_names_the_slowest(
    tmp_path: Path, engine: str, capfd: pytest.CaptureFixture[str]
) -> None:
    recorded_trace(tmp_path / "t.trace")
    with ScriptedServer({"/a?q=1": OK, "/b": OK}) as server:
        words = [str(tmp_path / "t.trace"), "--target", f"http://127.0.0.1:{server.port}", "--methods", "all"]
        words += ["--send-headers", "all", "--traceparent", "--trace-url", URL, "--engine", engine, "--plain"]
        assert invoke(["run", *words, "-o", str(tmp_path / "run")]) in RAN
    said = capfd.readouterr().out
    run = load_run(tmp_path / "run")
    seed = seed_of(run.document.run_id)
    by_seq = {int(header(request, b"X-Replay")[0].rpartition(b"-")[2]): request for request in server.asked}
    assert sorted(by_seq) == list(range(12))
    for seq, request in by_seq.items():
        assert header(request, b"traceparent") == [naive.traceparent(seed, seq)]
        assert header(request, b"tracestate") == [] and header(request, b"baggage") == [b"k=v"]
    samples = run.samples()
    assert samples and all(sample.trace_id == trace_id(seed, sample.seq) for sample in samples)
    assert "a recorded traceparent and tracestate are not sent" in " ".join(said.split())
    slowest = max(samples, key=lambda sample: sample.response_ns or 0)
    assert slowest.trace_id in said and URL in said
    write_run_page(run, tmp_path / "run.html")
    link = URL.replace("{trace_id}", slowest.trace_id).replace("&", "&amp;")
    assert f'<a href="{link}" rel="noreferrer">{slowest.trace_id}</a>' in (tmp_path / "run.html").read_text()


def test_failed_requests_have_traces_and_unsent_ones_have_none(tmp_path: Path) -> None:
    routes = [RouteStart("GET /a", traced=True), RouteStart("GET /b")]
    made = trial(tmp_path / "run", named=routes, run_id="12345678")
    for route in (0, 1):
        made.lanes[0].request(route, "reset")
        made.lanes[0].unsent(route)
    made.recorder.finish(at_s(2))
    samples = load_run(tmp_path / "run").samples()
    assert {(sample.route, sample.outcome, bool(sample.trace_id)) for sample in samples} == {
        ("GET /a", "reset", True), ("GET /a", "unsent", False), ("GET /b", "reset", False), ("GET /b", "unsent", False),
    }  # fmt: skip


def test_without_it_nothing_of_the_recording_is_replaced(tmp_path: Path) -> None:
    trace = recorded_trace(tmp_path / "t.trace")
    with ScriptedServer({"/a?q=1": OK}) as server:
        words = [str(tmp_path / "t.trace"), "--target", f"http://127.0.0.1:{server.port}"]
        assert invoke(["run", *words, "--send-headers", "all", "--plain", "-o", str(tmp_path / "run")]) in RAN
    assert trace.rows == 12 and len(server.asked) == 6
    assert all(header(request, b"traceparent") == [OLD] for request in server.asked)


TEMPLATES = """
methods = "all"
send_headers = ["x-a", "traceparent"]
[[set]]
route = "GET *"
path = "/c/{client}/{uuid}"
[[set]]
route = "GET *"
header = "X-Own"
value = "{uuid}"
[[body]]
route = "POST *"
template = "traceparent: 00- {uuid}"
"""


def test_requests_of_templates_have_one_too(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(TEMPLATES)
    scenario = load(tmp_path / "s.toml", {"target": "http://127.0.0.1:81", "traceparent": True})
    schedule = checked(make_schedule(recorded_trace(tmp_path / "t.trace"), scenario))
    feed = empty_feed()
    (batch,) = schedule.batches()
    spec = render_of(schedule).traced(99).numbered("00000000")
    assert render(schedule, spec, batch, feed) == 12
    for seq, (_, request) in enumerate(pushed(feed)):
        assert header(request, b"traceparent") == [naive.traceparent(99, seq)]
        assert header(request, b"x-a") == [b"1"]
        assert int((header(request, b"Content-Length") or [b"0"])[0]) == len(
            request.partition(b"\r\n\r\n")[2]
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[headers]\nTraceParent = 'x'", "headers.TraceParent"),
        (
            "[[set]]\nroute = '*'\nheader = 'tracestate'\nvalue = 'x'",
            "header: traceparent sets the trace context",
        ),
        (
            "[auth]\ncommand = './t'\nheader = 'Traceparent'",
            "auth.header: traceparent sets the trace context",
        ),
        ("client_ip_header = 'traceparent'", "client_ip_header: traceparent sets traceparent itself"),
    ],
)
def test_a_context_that_is_given_twice_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f"target = 'http://127.0.0.1'\n{text}\n" if "[" not in text else f"{text}\n")
    flags = {"target": "http://127.0.0.1", "traceparent": True}
    with pytest.raises(UsageError, match=re.escape(said.partition(":")[0])) as caught:
        load(path, flags)
    assert "traceparent" in str(caught.value)
    load(path, {"target": "http://127.0.0.1"})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://h.example/{trace_id}", ""),
        ("http://127.0.0.1:16686/trace/{trace_id}?x={trace_id}", ""),
        ("https://h.example/", "does not contain"),
        ("javascript:alert('{trace_id}')", "not an http"),
        ("ftp://h/{trace_id}", "not an http"),
        ("/t/{trace_id}", "not an http"),
        ("https://u:p@h/{trace_id}", "credentials"),
        ("https://h:99999/{trace_id}", "not a URL"),
        ("https://h/ {trace_id}", "not an http"),
        ("https://[h/{trace_id}", "not a URL"),
    ],
)
def test_the_page_of_a_trace_is_a_web_page(url: str, said: str) -> None:
    assert said in url_problem(url) and bool(said) == bool(url_problem(url))
    if said:
        with pytest.raises(UsageError, match="trace_url"):
            load(None, {"target": "http://127.0.0.1", "trace_url": url})


def test_a_link_is_only_made_of_what_is_one() -> None:
    assert link_of("https://h/{trace_id}", "a" * 32) == "https://h/" + "a" * 32
    for url, found in (
        ("javascript:x{trace_id}", "a" * 32), ("https://h/{trace_id}", '"><script>'), (None, "a" * 32),
        (7, "a" * 32), ("https://h/{trace_id}", "A" * 32), ("https://h/{trace_id}", ""),
    ):  # fmt: skip
        assert link_of(url, found) == ""


def test_what_uses_no_trace_context_is_named_in_the_plan() -> None:
    target = {"target": "http://127.0.0.1:81"}
    assert unused_settings(load(None, {**target, "traceparent": True})) == []
    assert unused_settings(load(None, {**target, "trace_url": URL})) == ["trace_url (for --traceparent)"]


def test_a_hostile_folder_gets_no_link(tmp_path: Path) -> None:
    recorded_trace(tmp_path / "t.trace", rows=4)
    with ScriptedServer({"/a?q=1": OK}) as server:
        words = [
            "run",
            str(tmp_path / "t.trace"),
            "--target",
            f"http://127.0.0.1:{server.port}",
            "--traceparent",
        ]
        assert invoke([*words, "--trace-url", URL, "--plain", "-o", str(tmp_path / "run")]) in RAN
    path = tmp_path / "run" / "run.json"
    document = msgspec.json.decode(path.read_bytes())
    document["scenario"]["trace_url"] = "javascript:alert(1)//{trace_id}"
    path.write_bytes(msgspec.json.encode(document))
    run = load_run(tmp_path / "run")
    write_run_page(run, tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert run.samples()[0].trace_id in page and "<a href" not in page
