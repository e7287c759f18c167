"""`replay diff base=recorded`: the same code with other data is SAME; a field that the recording never lacks is named."""

from __future__ import annotations

import gzip
import json
import random
from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest

from replay.cli.commands import invoke
from replay.results.document import TraceIdentity
from replay.trace import RecordedResponse, Trace, TraceWriter
from tests.support.response_data import ROUTES, START_NS, make_run, reply_of

PRODUCT, SEARCH, ORDER, PAGE = range(4)
REQUESTS = 480


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """The shop as it was recorded, with data of its own; some bodies are compressed, one is broken."""
    noise = random.Random(1)
    at = datetime.fromtimestamp(START_NS / 1e9, UTC)
    path = tmp_path_factory.mktemp("recorded") / "shop.trace"
    with TraceWriter(path) as writer:
        request = writer.add_request("GET", b"/")
        ids, statuses = [], []
        for number in range(REQUESTS):
            reply = reply_of(number, noise, at, data=5)
            body = msgspec.json.encode(reply.document) if reply.document is not None else reply.text.encode()
            kind = "application/json" if reply.document is not None else "text/html"
            headers: tuple = ((b"Content-Type", kind.encode()), (b"Cache-Control", b"max-age=60"))
            if number % 3 == 0:
                body, headers = gzip.compress(body), (*headers, (b"Content-Encoding", b"gzip"))
            if number == 30:
                body = b"not gzip"
            ids.append(writer.add_response(RecordedResponse(kind, headers, len(body), 1, body)))
            statuses.append(reply.status)
        writer.add_events(
            np.arange(START_NS, START_NS + REQUESTS), np.full(REQUESTS, request, np.uint32),
            np.zeros(REQUESTS, np.uint32), np.array(statuses, np.int16), response=np.array(ids)
        )  # fmt: skip
    return Trace.open(path)


def diff(folder, trace, fault=None, *more, runs=2, data=0):
    identity = TraceIdentity(
        path=str(trace.path), digest=trace.digest, rows=REQUESTS, first_at_ns=0, last_at_ns=1
    )
    new = [
        make_run(folder / f"new-{n}", seed=n, requests=REQUESTS, fault=fault, data=data, trace=identity)
        for n in range(runs)
    ]
    place = folder / "diff.json"
    sides = ["base=recorded", "new=" + ",".join(map(str, new))]
    code = invoke(["diff", *sides, f"--json={place}", "--plain", *more])
    return code, json.loads(place.read_bytes())


def on(route, change, share=1.0):
    def fault(reply, chance):
        if reply.route == route and chance.random() < share:
            change(reply)

    return fault


def test_the_same_code_with_other_data_is_the_same(trace, tmp_path):
    code, found = diff(tmp_path, trace)
    assert (code, found["verdict"], found["fields"]) == (0, "SAME", [])
    assert "values were not compared" in found["sentence"] and found["fields_equal"] > 30
    assert any("1 body could not be decoded" in note for note in found["notes"])


CASES = {
    "absent": (lambda reply: reply.document.pop("stock"), "/stock", "absent"),
    "added": (lambda reply: reply.document.update(colour="red"), "/colour", "added"),
    "another type": (lambda reply: reply.document.update(id="x"), "/id", "type"),
    "a null": (lambda reply: reply.document["price"].update(amount=None), "/price/amount", "type"),
    "another array": (lambda reply: reply.document.update(tags=[1, 2]), "/tags", "type"),
    "an object": (lambda reply: reply.document.update(brand="Brand"), "/brand", "type"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_recording_never_has_is_named(name, trace, tmp_path):
    change, field, kind = CASES[name]
    code, found = diff(tmp_path, trace, on(PRODUCT, change, share=0.5))
    assert (code, found["verdict"]) == (99, "DIFFERENT")
    (one,) = found["fields"]
    assert (one["route"], one["field"], one["kind"]) == (ROUTES[PRODUCT], field, kind)
    assert one["across"] == pytest.approx(0.5, abs=0.15)
    assert one["examples"][0]["base_run"] == "recorded"


def test_a_field_that_some_elements_lack_is_named(trace, tmp_path):
    _, found = diff(tmp_path, trace, on(SEARCH, lambda reply: reply.document["items"][0].pop("price")))
    assert [(one["field"], one["kind"]) for one in found["fields"]] == [("/items/*/price", "absent")]


def test_statuses_that_were_never_recorded(trace, tmp_path):
    code, found = diff(
        tmp_path / "a", trace, on(PRODUCT, lambda reply: setattr(reply, "status", 404), share=0.3)
    )
    assert (code, found["verdict"]) == (0, "SAME")
    assert any("another status than recorded" in note for note in found["notes"])
    _, found = diff(
        tmp_path / "b", trace, on(PRODUCT, lambda reply: setattr(reply, "status", 404), share=0.9)
    )
    assert [one["field"] for one in found["fields"]] == ["status"]
    assert (found["fields"][0]["examples"][0]["base"], found["fields"][0]["examples"][0]["new"]) == (
        "200",
        "404",
    )


def test_values_are_compared_where_that_is_asked_for(trace, tmp_path):
    _, found = diff(tmp_path / "a", trace, None, "--values", data=5)
    assert found["verdict"] == "SAME", [one["field"] for one in found["fields"]]
    wrong = on(PRODUCT, lambda reply: reply.document["price"].update(currency="CHF"))
    _, found = diff(tmp_path / "b", trace, wrong, "--values", data=5)
    assert [(one["field"], one["kind"]) for one in found["fields"]] == [("/price/currency", "value")]
    assert found["fields"][0]["examples"][0]["new"] == "CHF"
    _, found = diff(tmp_path / "c", trace, wrong, "--values", data=5, runs=1)
    assert found["verdict"] == "INCONCLUSIVE" and not any(one["different"] for one in found["fields"])


def test_recordings_that_cannot_be_used_are_refused(trace, tmp_path, capsys):
    run = make_run(tmp_path / "run", seed=1, trace=TraceIdentity(
        path=str(trace.path), digest="another", rows=1, first_at_ns=0, last_at_ns=1
    ))  # fmt: skip
    assert invoke(["diff", "base=recorded", f"new={run}"]) == 2
    assert "is not the recording" in capsys.readouterr().err
    with TraceWriter(tmp_path / "bare.trace") as writer:
        writer.add_events(
            np.array([START_NS]),
            np.array([writer.add_request("GET", b"/")], np.uint32),
            np.zeros(1, np.uint32),
        )
    bare = Trace.open(tmp_path / "bare.trace")
    identity = TraceIdentity(path=str(bare.path), digest=bare.digest, rows=1, first_at_ns=0, last_at_ns=1)
    run = make_run(tmp_path / "other", seed=1, trace=identity)
    assert invoke(["diff", "base=recorded", f"new={run}"]) == 2
    assert "holds no recorded responses" in capsys.readouterr().err
    assert invoke(["diff", "base=recorded", f"new={run}", "--trace", str(tmp_path / "nowhere")]) == 2
    assert "there is no trace at" in capsys.readouterr().err
    assert invoke(["diff", "base=recorded"]) == 2
    assert "the runs of exactly one other side" in capsys.readouterr().err
