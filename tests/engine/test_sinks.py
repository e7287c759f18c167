"""Sinks: their figures add up to the accounts, and none of them fails or delays a run."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import trio

import replay
from replay.engine.recording import Recording
from replay.engine.sinks import Deltas, RunDocument, Second, Sink, Started, make_sinks
from replay.engine.sinks import threads as sink_threads
from replay.engine.sinks.rows import COLUMNS, csv_rows
from replay.engine.sinks.threads import SinkThreads
from replay.errors import UsageError
from replay.ledger import catalog
from replay.results import hlog
from replay.results.deltas import SUMMED
from replay.results.document import Note
from replay.results.folder import RunFolder
from replay.staging.sink import Sink as Target
from replay_native.ledger import lane_metrics
from replay_native.ledger.lane_metrics import COUNTERS, TOTALS
from tests.support import example_package
from tests.support.metrics_data import ROUTES, Lane, at_s, started, trial
from tests.support.there import there


class Kept(Sink):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.seconds: list[Second] = []
        self.deltas: list[Deltas] = []

    def start(self, started: Started) -> None:
        self.calls.append("start")

    def second(self, second: Second, deltas: Deltas) -> None:
        self.calls.append("second")
        self.seconds.append(second)
        self.deltas.append(deltas)

    def end(self, document: RunDocument) -> None:
        self.calls.append("end")

    def close(self) -> None:
        self.calls.append("close")


class Made:
    """A run by hand: two lanes, and sinks in threads."""

    def __init__(self, path: Path, sinks: list[Sink], **more: Any) -> None:
        start = started(**more)
        self.folder = RunFolder.create(path)
        self.lanes = [
            Lane(
                lane_metrics.create(self.folder.lane(number), len(ROUTES), 1 << 22, 0),
                start.closed_loop,
                number * 10**6,
            )
            for number in range(2)
        ]
        self.others = SinkThreads(sinks)
        self.recording = Recording(
            self.folder, [lane.metrics for lane in self.lanes], start, others=self.others
        )

    def ended(self, at: float) -> RunDocument:
        async def ending() -> RunDocument:
            self.recording.tick(at_s(at), last=True)
            await self.others.caught_up()
            document = self.recording.finish(at_s(at))
            await self.others.caught_up()
            return self.recording.with_last_notes(document)

        return trio.run(ending)

    def notes(self) -> list[Note]:
        document = json.loads(self.folder.run.read_bytes())
        return [Note(**note) for note in document["notes"] if note["code"].startswith("SINK")]


@pytest.mark.parametrize("closed_loop", [False, True])
def test_what_sinks_are_given_adds_up_to_the_run_exactly(tmp_path: Path, closed_loop: bool) -> None:
    kept = Kept()
    made = Made(tmp_path / "run", [kept], closed_loop=closed_loop)
    for second in range(25):
        for number, lane in enumerate(made.lanes):
            lane.many(5, seed=second)
            lane.request(number, ("reset", "5xx", "timeout")[second % 3])
            lane.request(2, warm_up=True)
            if not closed_loop:
                lane.unsent(1)
        made.recording.tick(at_s(second + 1))
    document = made.ended(25.5)
    assert kept.calls == ["start", *["second"] * 26, "end", "close"]

    counters: Counter[str] = Counter()
    routes: Counter[tuple[str, str]] = Counter()
    histograms: dict[str, np.ndarray] = {}
    for deltas in kept.deltas:
        counters.update(deltas.counters)
        routes.update({(route, name): n for route, of in deltas.routes.items() for name, n in of.items()})
        for delta in deltas.histograms:
            counts = delta.histogram.counts
            histograms[delta.tag] = histograms.get(delta.tag, 0) + counts
            assert delta.count == counts.sum()
    accounts = document.accounts
    for name in ("planned", "sent", "ok", "error", "timeout"):
        assert counters[name] == sum(getattr(row, name) for row in kept.seconds) == getattr(accounts, name)
    assert sum(counters[f"unsent_{reason}"] for reason in document.accounts_detail.unsent) == accounts.unsent
    assert dict(kept.deltas[-1].totals) == {name: counters[name] for name in SUMMED}
    assert {(r.route, name): n for r in document.routes for name, n in r.outcomes.items()} == dict(routes)
    saved = hlog.read_hlog(made.folder.totals).by_tag()
    assert all(np.array_equal(histogram.counts, histograms[tag]) for tag, histogram in saved.items()
               if tag.count(".") < 2 or closed_loop is tag.startswith("service"))  # fmt: skip


def test_a_folder_that_can_be_recovered_has_its_logs_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may be killed right after started.json is written."""
    found = []
    write = RunFolder.write

    def written(folder: RunFolder, path: Path, *more: Any, **flags: Any) -> None:
        if path == folder.started:
            found.append((folder.latency.read_bytes()[:1], folder.timeline.read_bytes()))
        write(folder, path, *more, **flags)

    monkeypatch.setattr(RunFolder, "write", written)
    made = Made(tmp_path / "run", [])
    made.recording.close()
    assert found == [(b"#", b"")]


class Screen(Kept):
    """Shows the rows of the timeline only."""

    every_total = False


def test_histograms_that_no_sink_needs_are_not_computed_each_second(tmp_path: Path) -> None:
    found = []
    for number, others in enumerate(([], [Kept()])):
        screen = Screen()
        made = Made(tmp_path / str(number), [screen, *others])
        made.lanes[0].many(5, seed=1)
        made.recording.tick(at_s(1))
        made.ended(1.5)
        found.append({delta.tag for each in screen.deltas for delta in each.histograms if not delta.route})
        assert screen.seconds[0].planned > 0
        assert found[-1] >= set(made.recording._recorder.logged)
    assert found[0] < found[1] == set(TOTALS)


def test_counters_that_do_not_only_grow_are_not_summed() -> None:
    left = set(COUNTERS) - set(SUMMED)
    assert left == {counter.name for counter in catalog.COUNTERS if counter.kind != "count"}
    assert {"in_flight", "open", "waiting", "gap_max_ns", "first_due_ns", "cpu_last_ns"} <= left
    assert {"planned", "sent", "ok", "error", "timeout", "bytes_sent", "retries"} <= set(SUMMED)


class Failing(Kept):
    """Raises in one method."""

    def __init__(self, method: str, error: BaseException) -> None:
        super().__init__()
        self._method, self._error = method, error

    def __getattribute__(self, name: str) -> Any:
        if name in ("start", "second", "end", "close") and name == self._method:

            def fail(*_: object) -> None:
                self.calls.append(name)
                raise self._error

            return fail
        return super().__getattribute__(name)


@pytest.mark.parametrize("method", ["start", "second", "end", "close"])
@pytest.mark.parametrize("error", [ValueError("no\x1b[2J disk"), SystemExit(3), KeyboardInterrupt()])
def test_a_sink_that_raises_is_reported_and_the_run_goes_on(
    tmp_path: Path, method: str, error: BaseException
) -> None:
    failing, kept = Failing(method, error), Kept()
    made = Made(tmp_path / "run", [failing, kept])
    for second in range(3):
        made.lanes[0].many(5)
        made.recording.tick(at_s(second + 1))
    document = made.ended(4)
    assert document.accounts.ok == 15 and document.validity.verdict == "VALID"
    assert kept.calls == ["start", *["second"] * 4, "end", "close"]
    expected = {
        "start": ["start", "close"],
        "second": ["start", *["second"] * 4, "end", "close"],
        "end": ["start", *["second"] * 4, "end", "close"],
        "close": ["start", *["second"] * 4, "end", "close"],
    }
    assert failing.calls == expected[method]
    (note,) = made.notes()
    assert (
        note.code == "SINK_FAILED" and f"Failing failed in {method}(): {type(error).__name__}" in note.message
    )
    assert "\x1b" not in note.message
    lost = {"start": "it wrote nothing", "second": "it lost 4 of 4 seconds"}
    assert lost.get(method, "") in note.message
    assert [note] == [each for each in document.notes if each.code.startswith("SINK")]


class Slow(Kept):
    """Waits in each second until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def second(self, second: Second, deltas: Deltas) -> None:
        self.go.wait(60)
        super().second(second, deltas)


def test_a_sink_that_falls_behind_loses_seconds_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_threads, "QUEUED_MAX", 10)
    slow = Slow()
    made = Made(tmp_path / "run", [slow])
    for second in range(30):
        made.lanes[0].request()
        made.recording.tick(at_s(second + 1))
    slow.go.set()
    document = made.ended(31)
    written = slow.calls.count("second")
    assert 9 <= written <= 12 and slow.calls[-2:] == ["end", "close"]
    (note,) = made.notes()
    assert note == Note("SINK_BEHIND", f"the sink Slow was too slow; it lost {31 - written} of 31 seconds")
    assert document.accounts.ok == 30


def test_a_sink_that_hangs_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_threads, "LEAVE_S", 0.3)
    slow = Slow()
    made = Made(tmp_path / "run", [slow])
    for second in range(3):
        made.recording.tick(at_s(second + 1))
    document = made.ended(4)
    assert document.ending.how == "whole"
    (note,) = made.notes()
    assert (
        note.code == "SINK_BEHIND" and "left behind" in note.message and "lost 4 of 4 seconds" in note.message
    )
    slow.go.set()
    deadline = time.monotonic() + 20
    while "close" not in slow.calls and time.monotonic() < deadline:
        time.sleep(0.01)
    assert slow.calls == ["start", "second", "close"], "once it returns it is only closed"


def test_a_wrong_sink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    for text, said in (
        ("jsnl=x", "did you mean jsonl"),
        ("graphite=:9000", "there are: csv, jsonl, otlp, prometheus"),
        ("csv", "csv needs a file"),
        ("csv=", "csv needs a file"),
        (f"csv={tmp_path}/there.csv", "exists already"),
        (f"jsonl={tmp_path}", "is a folder"),
        (f"jsonl={tmp_path}/no/x.jsonl", "there is no folder"),
    ):
        with pytest.raises(UsageError) as refused:
            make_sinks([text])
        assert said in f"{refused.value} ({refused.value.hint})"
    with pytest.raises(UsageError, match="given twice"):
        make_sinks([f"csv={tmp_path}/x.csv", f"csv={tmp_path}/x.csv"])
    with pytest.raises(UsageError, match="object is not a sink: it has no start, second"):
        make_sinks([object()])  # type: ignore[list-item]


BROKEN = """
import os, sys, time
from replay.engine.sinks import Sink

class Hangs(Sink):
    def second(self, second, deltas):
        time.sleep(600)

class Spins(Sink):
    def second(self, second, deltas):
        while True:
            pass

class Raises(Sink):
    def second(self, second, deltas):
        raise OSError(28, "No space left on device")

class Leaves(Sink):
    def start(self, started):
        sys.exit("bye")

class Refuses(Sink):
    def __init__(self, value):
        raise ValueError(f"{value!r} is no port")

def crashes(value):
    return {}[value]

def nothing(value):
    return 7

def make(kind):
    return lambda value: kind()

hangs, spins, raises, leaves = make(Hangs), make(Spins), make(Raises), make(Leaves)
"""


@pytest.fixture(scope="module")
def area(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package of broken sinks, and an access log."""
    folder = tmp_path_factory.mktemp("sinks")
    (folder / "broken_sinks.py").write_text(textwrap.dedent(BROKEN))
    info = folder / "broken_sinks-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-sinks\nVersion: 1\n")
    names = ("hangs", "spins", "raises", "leaves", "Refuses", "crashes", "nothing", "missing")
    entries = [f"{name.lower()} = broken_sinks:{name}" for name in names]
    entries += ["csv = broken_sinks:hangs", "gone = no_such_module:x"]
    (info / "entry_points.txt").write_text("[replay.sinks]\n" + "\n".join(entries) + "\n")
    lines = [
        f'10.0.0.{n % 9} - - [10/Oct/2025:13:55:{n // 20:02d} +0000] "GET /a?n={n} HTTP/1.1" 200 12 "-" "-"\n'
        for n in range(60)
    ]
    (folder / "access.log").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with Target() as sink:
        yield f"http://127.0.0.1:{sink.port}"


def command(*words: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    given = env or os.environ | {"PYTHONPATH": str(cwd)}
    return subprocess.run(
        [sys.executable, "-m", "replay.cli", *map(str, words)],
        capture_output=True, text=True, timeout=200, check=False, cwd=cwd, env=given,
    )  # fmt: skip


@pytest.mark.whole
@pytest.mark.timing
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hangs", "SINK_BEHIND: the sink Hangs had not ended"),
        ("spins", "SINK_BEHIND: the sink Spins had not ended"),
        ("raises", "SINK_FAILED: the sink Raises failed in second(): OSError: [Errno 28] No space left"),
        ("leaves", "SINK_FAILED: the sink Leaves failed in start(): SystemExit: bye; it wrote nothing"),
    ],
)
def test_no_sink_fails_or_holds_up_a_run(
    area: Path, target: str, tmp_path: Path, name: str, said: str
) -> None:
    out = tmp_path / "run"
    words = ("run", "access.log", "--target", target, "-o", out, "--plain", "--sink", name)
    done = command(*words, "--sink", f"jsonl={tmp_path}/x.jsonl", cwd=area)
    assert done.returncode in (0, 4), done.stdout + done.stderr
    assert said in " ".join(done.stdout.split()), done.stdout
    assert "Traceback" not in done.stderr
    document = json.loads((out / "run.json").read_text())
    assert document["accounts"]["ok"] == 60 and any(
        said.startswith(note["code"]) for note in document["notes"]
    )
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert sum(row["sent"] for row in rows) == 60
    assert (tmp_path / "x.jsonl").read_text() == (out / "timeline.jsonl").read_text()
    quiet = command(*words[:5], tmp_path / "again", "-q", "--sink", name, cwd=area)
    assert said.split(":", maxsplit=1)[0] in quiet.stderr and quiet.stdout == ""


@pytest.mark.whole
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("refuses=x", "--sink refuses=x: 'x' is no port"),
        ("crashes=x", "--sink crashes=x: KeyError: 'x'"),
        ("nothing", "--sink nothing: int is not a sink: it has no start, second, end, close"),
        ("missing", "--sink missing: broken-sinks cannot be loaded: AttributeError"),
        ("gone", "--sink gone: broken-sinks cannot be loaded: ModuleNotFoundError"),
        ("csv=x.csv", "--sink csv: replay and broken-sinks each have a sink of this name"),
        ("hang", "there is no sink 'hang' (did you mean hangs?)"),
    ],
)
def test_a_sink_that_cannot_be_made_is_refused_before_anything_is_sent(
    area: Path, tmp_path: Path, text: str, said: str
) -> None:
    with Target() as sink:
        url = f"http://127.0.0.1:{sink.port}"
        done = command("run", "access.log", "--target", url, "-o", tmp_path / "run", "--sink", text, cwd=area)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.mark.whole
def test_the_sink_of_the_example_package_is_used_by_its_name(area: Path, target: str, tmp_path: Path) -> None:
    env = example_package.install(tmp_path / "site")
    log, out = area / "access.log", tmp_path / "run"
    done = command(
        "run", log, "--target", target, "-o", out, "--plain", "--sink", "seconds=a.csv", "--sink", "csv=b.csv",
        cwd=tmp_path, env=env,
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stdout + done.stderr
    document = msgspec.json.decode((out / "run.json").read_bytes(), type=RunDocument)
    assert not [note for note in document.notes if note.code.startswith("SINK")]
    head, *rows, last = list(csv.reader((tmp_path / "a.csv").open()))
    assert head == ["second", "sent", "ok", "responses"] and last[:3] == ["all", "60", "60"]
    assert [sum(int(row[at]) for row in rows) for at in (1, 2, 3)] == [
        60,
        60,
        there(document.latency.response).count,
    ]
    table = list(csv.DictReader((tmp_path / "b.csv").open()))
    assert tuple(table[0]) == COLUMNS and sum(int(row["outcome_2xx"]) for row in table) == 60
    refused = command("run", log, "--target", target, "--sink", "seconds=a.txt", cwd=tmp_path, env=env)
    assert refused.returncode == 2 and "'a.txt' is no .csv file" in refused.stderr


@pytest.mark.whole
def test_the_library_takes_sinks(area: Path, target: str, tmp_path: Path) -> None:
    trace = replay.import_log(area / "access.log", out=tmp_path / "trace")
    kept = Kept()
    rows = tmp_path / "rows.csv"
    run = replay.run(trace, target=target, out=tmp_path / "run", sinks=[kept, f"csv={rows}"])
    assert sum(second.sent for second in kept.seconds) == run.document.accounts.sent == 60
    assert kept.calls[0] == "start" and kept.calls[-2:] == ["end", "close"]
    assert len(rows.read_text().splitlines()) == len(kept.seconds) + 1


@pytest.mark.parametrize("name", ["", "twin"])
def test_figures_of_an_object_are_one_json_column_of_the_csv(tmp_path: Path, name: str) -> None:
    watch = [{"name": "depth", "command": "echo 4"}, {"name": name, "json": "http://x/", "members": True}]
    before = f"{name}." if name else ""
    made = trial(tmp_path / "run")
    sink = csv_rows(str(tmp_path / "rows.csv"))
    sink.start(started(scenario={"watch": watch}))
    for second in range(3):
        figures: dict[str, float | None] = {"depth": 4.0}
        if second:
            figures[f"{before}busy"] = float(second)
        row = made.recorder.tick(at_s(second + 1), watched=figures)
        row = msgspec.structs.replace(row, actions={"sign-up": (7, 1)} if second == 1 else {})
        sink.second(row, Deltas())
    sink.close()
    rows = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [row["actions"] for row in rows] == ["", '{"sign-up":[7,1]}', ""]
    assert [row["watched depth"] for row in rows] == ["4.0"] * 3
    members = [json.loads(row["watched_members"]) for row in rows]
    assert members == [{}, {f"{before}busy": 1.0}, {f"{before}busy": 2.0}]
    assert "watched " not in rows[0] and f"watched {name}" not in rows[0]
