"""Business actions of a scenario by the real command: plan, report, page, JSON, live page, messages, peak."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replay.cli import invoke
from replay.errors import Exit, UsageError
from replay.live_page.sections import figure_sections
from replay.live_page.view import View
from replay.notify.messages import Notifications
from replay.peaks.actions import action_holds, load_words
from replay.peaks.search import Trial
from replay.plan.schedule import make_schedule
from replay.report.business import worst_minutes
from replay.results.document import RecordedClock, RouteStart
from replay.results.run import load_run
from replay.settings.file import load
from replay.staging.sink import Sink
from replay.trace import RouteRules
from replay.trace.actions import rules_of, with_actions
from replay.units import parse_zone
from tests.live_page.test_server import run_into
from tests.support.http_plan import checked
from tests.support.metrics_data import at_s, trial
from tests.support.there import there
from tests.support.trace_data import Row, write_trace

RAN = (Exit.PASSED, Exit.FAILED, Exit.INVALID)
"""Exit codes of a run that sent everything: on a busy machine it may have sent it late."""

MS = 1_000_000
GOOD, BAD = b"/sink/users", b"/sink/status=503"
TEXT = """
target = "http://127.0.0.1:{port}"
methods = "all"
[actions]
registration = ["GET /sink/status*", "GET /sink/users"]
payment = ["POST *"]
refund = ["DELETE /refund"]
[values]
registration = "9.99 EUR"
payment = "100 USD"
regstration = "1 EUR"
"""


def recorded(folder: Path) -> Path:
    rows = [Row(20 * MS * n, "GET", BAD if n % 12 == 0 else GOOD) for n in range(24)]
    rows += [Row(20 * MS * n + MS, "POST", b"/sink/status=500") for n in range(4)]
    rows += [Row(20 * MS * n + 2 * MS, "GET", b"/sink/other") for n in range(4)]
    return write_trace(folder / "t.trace", sorted(rows)).path


def scenario(folder: Path, port: int, text: str = TEXT) -> Path:
    path = folder / "s.toml"
    path.write_text(text.format(port=port))
    return path


def test_the_whole_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Sink() as sink:
        words = [
            "run",
            str(recorded(tmp_path)),
            str(scenario(tmp_path, sink.port)),
            "--empty-bodies",
            "--plain",
        ]
        words += [
            f"--html={tmp_path / 'run.html'}",
            f"--json={tmp_path / 'out.json'}",
            "-o",
            str(tmp_path / "run"),
        ]
        assert invoke(words) in RAN
    said = " ".join(capfd.readouterr().out.split())
    for sentence in (
        "registration: 24 requests, 9.99 EUR each",
        "payment: 4 requests, 100 USD each",
        "refund: 'DELETE /refund' is not a route of the recording",
        "refund: none of its requests are sent",
        "the value 1 EUR is not used: there is no action regstration (did you mean registration?)",
        "1 in 12 registrations failed (2), about",
        "all 4 payments failed, about",
        "failed: a 5xx, no complete response, or not sent because of the target; 4xx are not counted",
        "worst by minute of the recorded clock",
        "2 of 24 19.98 EUR",
    ):
        assert sentence in said
    assert "together" not in said
    page = (tmp_path / "run.html").read_text()
    assert (
        "1 in 12 registrations failed (2), about" in page and "Worst by minute of the recorded clock" in page
    )
    business = json.loads((tmp_path / "out.json").read_bytes())["business"]
    assert business["lost"] == {"EUR": 19.98, "USD": 400.0}
    assert business["without_requests"] == ["refund"] and business["values_unused"] == ["regstration"]
    run = load_run(tmp_path / "run")
    assert [action.route for action in run.document.actions] == ["registration", "payment"]
    assert len(worst_minutes(run.document)) == 2
    assert sum(row.actions.get("payment", (0, 0))[1] for row in run.seconds()) == 4


def test_actions_of_a_scenario_may_stand_where_a_route_is_named(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(0, "GET", GOOD), Row(MS, "GET", b"/other"), Row(2 * MS)])
    actions = {"joining": ["GET /sink/users"], "rest": ["GET /*"]}
    base = {"target": "http://127.0.0.1:81", "actions": actions}
    (tmp_path / "area").mkdir()
    only = make_schedule(trace, load(None, {**base, "only": ["joining"]}), area=tmp_path / "area")
    assert only.plan.rows == 1
    (tmp_path / "area2").mkdir()
    scaled = make_schedule(trace, load(None, {**base, "scale": ["joining=3"]}), area=tmp_path / "area2")
    assert {route.action: route.rows for route in scaled.plan.by_route if route.action == "joining"} == {
        "joining": 3
    }
    checked(make_schedule(trace, load(None, {**base, "slo": ['errors of "rest" < 1%']})))
    (tmp_path / "area3").mkdir()
    with pytest.raises(UsageError, match="did you mean 'joining'"):
        make_schedule(trace, load(None, {**base, "only": ["joinin"]}), area=tmp_path / "area3")


def test_the_scenario_comes_before_the_recording(tmp_path: Path) -> None:
    own = RouteRules(actions=(("old", ("GET /a",)), ("kept", ("GET /b",)), ("changed", ("GET /c", "GET /d"))))
    rows = [Row(n, "GET", path) for n, path in enumerate((b"/a", b"/b", b"/c", b"/d"))]
    trace = write_trace(tmp_path / "t.trace", rows)
    for route in trace.manifest.routes:
        route.action = own.action_of(route.route)
    given = {"new": ["GET /a"], "changed": ["GET /d"]}
    found = with_actions(trace, given)
    assert {route.route: route.action for route in found.manifest.routes} == {
        "GET /a": "new", "GET /b": "kept", "GET /c": "", "GET /d": "changed",
    }  # fmt: skip
    assert (
        found.digest == trace.digest
        and with_actions(found, given) is found
        and with_actions(trace, {}) is trace
    )
    merged = rules_of(given).before(own)
    assert [merged.action_of(f"GET /{letter}") for letter in "abcd"] == ["new", "kept", "", "changed"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[actions]\nall = ['*']", "actions.all: an action cannot have this name"),
        ("[actions]\n'two words' = ['*']", "an action cannot have this name"),
        ("[actions]\na = []", "actions.a: it has no route"),
        ("[actions]\na = [' ']", "actions.a: it has no route"),
        ("[actions]\na = 'GET /'", "line 3: actions.a: expected a list, got a text"),
        ("[values]\na = '9.99'", "line 3: values.a: '9.99': it has no currency"),
        ("[values]\nb = '1 EUR'\na = 9.99", "line 4: values.a: '9.99': it has no currency"),
        ("[values]\na = '9,99 EUR'", "line 3: values.a: '9,99 EUR' is not an amount of money"),
        ("[values]\na = true", "line 3: values.a: True is of the wrong type"),
        ("[actions]\na = ['GET /', 7]", "line 3: actions.a[1]: expected a text, got a number"),
        ("[headers]\nA = 'x'\nB = 7", "line 4: headers.B: expected a text, got a number"),
        ("[kafka.topic_map]\nA = 7", "line 3: kafka.topic_map.A: expected a text, got a number"),
        ("[values]\nother = '1 EUR'", "values.other: an action cannot have this name"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f"target = 'http://127.0.0.1'\n{text}\n")
    with pytest.raises(UsageError) as caught:
        load(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


VALUES = {"values": {"registration": "9.99 EUR"}}
NAMED = [RouteStart("POST /v1/users", action="registration"), RouteStart("GET /a"), RouteStart("GET /b")]


def test_the_live_page_says_what_it_costs(tmp_path: Path) -> None:
    pages: list[str] = []

    class Watching:
        name = "view"

        def start(self, started):
            self.view = View(started, 1)

        def second(self, second, deltas):
            self.view.take(second, deltas)
            pages.append(figure_sections(self.view)["actions"])

        def end(self, document):
            pass

        def close(self):
            pass

    named = [RouteStart("GET /a"), NAMED[0], RouteStart("GET /b")]
    run_into(tmp_path / "run", Watching(), scenario=VALUES, named=named)  # type: ignore[arg-type]
    assert "registrations failed (5), about" in pages[-1] and "EUR an hour at this rate" in pages[-1]
    document = load_run(tmp_path / "run").document
    assert "registrations failed (5), about" in there(document.business).actions[0].words


def test_messages_say_what_it_costs(tmp_path: Path) -> None:
    sent: list[dict[str, object]] = []
    named = [RouteStart("GET /a"), NAMED[0], RouteStart("GET /b")]
    sink = Notifications(sent.append)
    run_into(tmp_path / "run", sink, scenario=VALUES, named=named, slo=["errors<0.1%"])
    sink.finish()
    assert [message["event"] for message in sent] == ["start", "breach", "end"]
    for message in sent[1:]:
        assert isinstance(message["business"], list) and len(message["business"]) == 1
        sentence = str(message["business"][0])
        assert "registrations failed" in sentence and "EUR an hour" in sentence
        assert sentence in str(message["text"])


def test_an_action_without_failures_is_no_part_of_a_message(tmp_path: Path) -> None:
    sent: list[dict[str, object]] = []
    made = trial(tmp_path / "run", named=NAMED, scenario=VALUES)
    made.lanes[0].request(0, "2xx")
    document = made.recorder.finish(at_s(1))
    assert there(document.business).actions[0].words == "none of 1 registrations failed"
    sink = Notifications(sent.append)
    run_into(tmp_path / "other", sink, named=NAMED)
    sink.finish()
    assert sent[-1]["business"] == []


def up(load_of: float, counts: dict[str, tuple[int, int]], **more: object) -> Trial:
    return Trial(load=load_of, passed={"errors<5%": True}, actions=counts, **more)  # type: ignore[arg-type]


def test_up_to_which_load_an_action_holds() -> None:
    trials = [
        up(1.0, {"payment": (100, 0), "login": (100, 6)}),
        up(2.0, {"payment": (100, 5), "login": (100, 0)}),
        up(4.0, {"payment": (100, 6), "browsing": (100, 0)}),
        up(8.0, {"payment": (100, 99)}, generator_limited="LATE"),
        Trial(load=3.0, passed={}, stage="probe", actions={"payment": (1, 1)}),
    ]
    holds = {hold.action: hold for hold in action_holds(trials, ["errors<5%", "p99<1s"], "last Monday")}
    assert holds["payment"].words == "payments hold up to 2 times last Monday"
    assert (holds["payment"].holds, holds["payment"].fails_at, holds["payment"].limit) == (2.0, 4.0, 0.05)
    assert holds["login"].words.startswith(
        "logins do not hold at 1 times last Monday, the lowest load that was tried"
    )
    assert holds["browsing"].words == (
        "browsing requests hold up to 4 times last Monday at least, the highest load that was tried"
    )
    assert next(iter(holds)) == "login"


def test_an_objective_of_its_own_decides_and_the_majority_of_votes() -> None:
    def voted(met: bool, bad: int = 0) -> Trial:
        return Trial(load=2.0, passed={'p99 of "payment"<1s': met}, actions={"payment": (100, bad)})

    goals = ['p99 of "payment"<1s']
    assert action_holds([voted(False), voted(True), voted(True)], goals, "x")[0].fails_at is None
    assert action_holds([voted(False), voted(False), voted(True)], goals, "x")[0].fails_at == 2.0
    assert action_holds([voted(True, bad=2)], goals, "x")[0].limit == 0.01


def test_what_a_load_of_one_is() -> None:
    target = {"target": "http://127.0.0.1"}
    monday_ns, day_ns = 1_767_636_000_000_000_000, 86_400_000_000_000
    zone = parse_zone("UTC")
    for days, words in (
        (0, "Monday, 2026-01-05"), (1, "last Monday"), (7, "last Monday"), (8, "Monday, 2026-01-05"),
        (-1, "Monday, 2026-01-05"),
    ):  # fmt: skip
        assert load_words(load(None, target), monday_ns, zone, monday_ns + days * day_ns) == words
    for more in ({"rate": "5/s"}, {"speed": 2}, {"scale": 3}, {"sample": "50%"}, {"peak": "10/s"}):
        assert (
            load_words(load(None, {**target, **more}), monday_ns, zone, monday_ns)
            == "the load of the scenario"
        )


@pytest.mark.whole
def test_peak_says_how_far_actions_hold(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Sink() as sink:
        text = 'slo = ["errors < 60%"]\n' + TEXT
        words = ["peak", str(recorded(tmp_path)), str(scenario(tmp_path, sink.port, text)), "--empty-bodies"]
        words += [
            "--highest",
            "2",
            "--trial",
            "1s",
            "--hold",
            "1s",
            "--votes",
            "1",
            "-o",
            str(tmp_path / "peak"),
        ]
        invoke([*words, "--plain"])
    found = json.loads((tmp_path / "peak" / "peak.json").read_bytes())
    if found["verdict"] == "GENERATOR_LIMITED":
        pytest.skip("this machine is too busy to send on time, so no load says anything")
    by_action = {hold["action"]: hold for hold in found["actions"]}
    assert by_action["payment"]["holds"] == 0.0 and "payments do not hold at" in by_action["payment"]["words"]
    assert "registrations hold up to" in by_action["registration"]["words"]
    said = " ".join(capfd.readouterr().out.split())
    assert "registrations hold up to" in said
    assert "registrations hold up to" in (tmp_path / "peak" / "peak.html").read_text()


def test_the_recorded_zone_is_that_of_the_minutes(tmp_path: Path) -> None:
    clock = RecordedClock(start_ns=1_767_636_000_000_000_000, speed=1.0, utc_offset_s=3_600)
    made = trial(tmp_path / "run", named=NAMED, scenario=VALUES, recorded_clock=clock)
    made.lanes[0].request(0, "5xx")
    document = made.recorder.finish(at_s(2))
    assert worst_minutes(document)[0][0].startswith("2026-01-05 19:00")
