"""`replay diff` by the real command: planted differences are found by name, noise is not, bad input is refused."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from replay.cli.commands import invoke
from replay.results.answers import Answers
from replay.results.document import Ending, TraceIdentity
from replay.results.figures import AnswerFigures
from tests.support.response_data import ROUTES, make_run, make_sides, write_answers, write_document
from tests.support.response_data import Reply as Response

PRODUCT, SEARCH, ORDER, PAGE = range(4)


def sides_text(base, new):
    return [f"{label}={','.join(map(str, paths))}" for label, paths in (("base", base), ("new", new))]


def diff(folder, base, new, *more):
    """Exit code and document."""
    place = folder / "diff.json"
    code = invoke(["diff", *sides_text(base, new), f"--json={place}", "--plain", *map(str, more)])
    return code, json.loads(place.read_bytes())


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_sides(tmp_path_factory.mktemp("base"), seed=3, requests=600)[0]


def planted(route, change, rate=1.0):
    def fault(reply, chance):
        if reply.route == route and chance.random() < rate:
            change(reply)

    return fault


def with_fault(folder, base, fault, *more, **given):
    new = [
        make_run(folder / f"new-{n}", seed=700 + n, label=2 * n + 1, requests=600, fault=fault, **given)
        for n in range(4)
    ]
    return diff(folder, base, new, *more)


def setter(path, change):
    """A change of what stands at a place of the document."""

    def plant(reply):
        node = reply.document
        *above, key = path
        for token in above:
            node = node[token]
        if change is None:
            del node[key]
        else:
            node[key] = change(node[key]) if key in node else change(None)

    return plant


def add_line(reply):
    reply.text = reply.text.replace("<h1>", "<p>New</p><h1>")


CASES = {
    "a missing field": (PRODUCT, setter(["price", "currency"], None), "/price/currency", "absent"),
    "an added field": (PRODUCT, setter(["colour"], lambda old: "red"), "/colour", "added"),
    "a null": (SEARCH, setter(["total"], lambda old: None), "/total", "type"),
    "a number as text": (ORDER, setter(["total"], str), "/total", "type"),
    "a rounded price": (
        PRODUCT,
        setter(["price", "amount"], lambda old: round(old, 1)),
        "/price/amount",
        "precision",
    ),
    "another value": (PRODUCT, setter(["brand", "country"], lambda old: "NO"), "/brand/country", "value"),
    "an order": (SEARCH, setter(["facets", "size"], lambda old: old[::-1]), "/facets/size", "order"),
    "a truncated list": (SEARCH, setter(["items"], lambda old: old[:-1]), "/items", "absent"),
    "a longer list": (ORDER, setter(["lines"], lambda old: [*old, old[0] | {"sku": "X"}]), "/lines", "added"),
    "a null in noise": (PRODUCT, setter(["token"], lambda old: None), "/token", "type"),
    "a status": (ORDER, lambda reply: setattr(reply, "status", 200), "status", "value"),
    "a header": (
        SEARCH,
        lambda reply: reply.headers.update({"cache-control": "no-store"}),
        "header cache-control",
        "value",
    ),
    "a missing header": (
        SEARCH,
        lambda reply: reply.headers.pop("cache-control"),
        "header cache-control",
        "absent",
    ),
    "a line of HTML": (PAGE, add_line, "line 6", "value"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_planted_difference_is_found_by_name_and_kind(name, base, tmp_path):
    route, change, field, kind = CASES[name]
    code, found = with_fault(tmp_path, base, planted(route, change))
    named = [one for one in found["fields"] if one["different"]]
    first = named[0]
    assert (code, found["verdict"]) == (99, "DIFFERENT")
    assert (first["route"], first["field"], first["kind"]) == (ROUTES[route], field, kind)
    assert {one["route"] for one in named} == {ROUTES[route]}
    assert all(one is first or one["inside"] for one in named), "the rest is a part of it"
    assert first["across"] > first["within"] and first["examples"][0]["which"] == "first"
    assert first["examples"][0]["base"] != first["examples"][0]["new"] or field == "/token"


def test_runs_of_one_build_are_the_same(base, tmp_path, capsys):
    code, found = with_fault(tmp_path, base, None)
    assert (code, found["verdict"]) == (0, "SAME")
    assert 0 < found["smallest"] < 0.2 and "would have been found" in found["sentence"]
    noise = {one["field"]: one["kind"] for one in found["fields"]}
    assert (
        noise["/meta/served_at"] == "time-like"
        and noise["/order_id"] == "id-like"
        and noise["/tags"] == "order"
    )
    assert found["fields_equal"] > 30
    assert "SAME" in capsys.readouterr().out


def test_a_rare_difference_and_one_client(base, tmp_path):
    rare = planted(PRODUCT, setter(["stock"], lambda old: -1), rate=0.2)
    assert with_fault(tmp_path / "a", base, rare)[1]["fields"][0]["field"] == "/stock"

    def one_client(reply, chance):
        if reply.client < 12 and reply.route == SEARCH:
            reply.document["query"] = "?"

    found = with_fault(tmp_path / "b", base, one_client)[1]["fields"][0]
    assert found["field"] == "/query" and found["clients"] <= 12


def test_few_runs_show_nothing(base, tmp_path, capsys):
    fault = planted(PRODUCT, setter(["stock"], None))
    new = [make_run(tmp_path / f"n{n}", seed=n, requests=600, fault=fault) for n in range(3)]
    code, found = diff(tmp_path, base, new)
    assert (code, found["verdict"]) == (0, "INCONCLUSIVE")
    assert "4 per side are needed" in found["reasons"][0] and "/stock" in found["sentence"]
    assert not any(one["different"] for one in found["fields"])
    assert diff(tmp_path, base, new, "--fail-on", "inconclusive")[0] == 3
    summary, page = tmp_path / "summary.md", tmp_path / "diff.html"
    diff(tmp_path, base, new, f"--markdown={summary}", f"--html={page}")
    for text in (capsys.readouterr().out, summary.read_text(), page.read_text()):
        words = " ".join(text.split())
        assert "between any two runs: too few runs to tell builds from noise" in words
        assert (
            "of one build as well" not in words
            and "only a change of shape" not in words
            and "that are noise" not in words
        )
    assert diff(tmp_path, base, new, "--fail-on", "different,inconclusive")[0] == 3


def test_one_run_of_base_has_no_rate_within(base, tmp_path, capsys):
    fault = planted(PRODUCT, setter(["stock"], None))
    new = [make_run(tmp_path / f"n{n}", seed=n, requests=600, fault=fault) for n in range(4)]
    code, found = diff(
        tmp_path, base[:1], new, f"--markdown={tmp_path / 'summary.md'}", f"--html={tmp_path / 'd.html'}"
    )
    assert (code, found["verdict"]) == (0, "INCONCLUSIVE")
    assert {one["within"] for one in found["fields"]} == {None}
    assert next(one for one in found["fields"] if one["field"] == "/stock")["across"] == 1.0
    assert "between runs of base" not in found["sentence"]
    assert "within base" not in (tmp_path / "d.html").read_text()
    assert "Traceback" not in capsys.readouterr().err


def test_digests_alone_name_status_type_and_body(tmp_path):
    def stable(reply, chance):
        reply.document = {"n": reply.number}
        reply.headers = {}

    def other(reply, chance):
        stable(reply, chance)
        if reply.route == SEARCH:
            reply.document["n"] += 1

    base = [make_run(tmp_path / f"b{n}", seed=n, fault=stable, bodies=False) for n in range(4)]
    new = [make_run(tmp_path / f"n{n}", seed=n, fault=other, bodies=False) for n in range(4)]
    code, found = diff(tmp_path, base, new)
    assert code == 99
    assert [(one["route"], one["field"]) for one in found["fields"]] == [(ROUTES[SEARCH], "body")]
    assert "digest" in found["fields"][0]["examples"][0]["base"]
    assert diff(tmp_path, base, base_again(tmp_path, stable))[1]["verdict"] == "SAME"


def base_again(folder, fault):
    return [make_run(folder / f"again{n}", seed=n, fault=fault, bodies=False) for n in range(4)]


def test_digests_that_always_differ_show_nothing(tmp_path):
    base, new = make_sides(tmp_path, bodies=False)
    code, found = diff(tmp_path, base, new)
    assert (code, found["verdict"]) == (0, "INCONCLUSIVE")
    assert (
        "nothing is known about their content" in found["reasons"][0]
        and "3 more routes" in found["reasons"][0]
    )
    (tmp_path / "ignore.toml").write_text('[[ignore]]\nfield = "body"\n')
    assert diff(tmp_path, base, new, "--ignore", tmp_path / "ignore.toml")[1]["verdict"] == "SAME"


def test_rules_leave_fields_out(base, tmp_path, capsys):
    accepted = tmp_path / "accepted.toml"
    fault = planted(SEARCH, setter(["items"], lambda old: old[:-1]))
    code, found = with_fault(tmp_path / "a", base, fault, "--accept", accepted)
    assert code == 99
    rules = tomllib.loads(accepted.read_text())["ignore"]
    assert rules == [{"route": ROUTES[SEARCH], "field": "/items"}]
    code, found = with_fault(tmp_path / "b", base, fault, "--ignore", accepted)
    assert (code, found["verdict"]) == (0, "SAME")
    assert {one["field"] for one in found["ignored"]} >= {"/items", "/items/*/price"}
    assert invoke(["diff", *sides_text(base, base[:1]), "--accept", str(accepted)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_rules_of_a_scenario_count_and_unused_ones_are_named(base, tmp_path):
    rules = {"ignore": [{"route": "GET /s*", "field": "/items/0/price"}, {"route": "*", "field": "/nothing"}]}
    fault = planted(SEARCH, lambda reply: reply.document["items"][0].update(price=0))
    code, found = with_fault(tmp_path, base, fault, scenario=rules)
    assert (code, found["verdict"]) == (0, "SAME")
    assert any("'/nothing' matches no field" in note for note in found["notes"])


def test_a_file_without_rules_is_refused(base, tmp_path, capsys):
    (tmp_path / "empty.toml").write_text("speed = 2\n")
    assert invoke(["diff", *sides_text(base, base), "--ignore", str(tmp_path / "empty.toml")]) == 2
    assert "no [[ignore]] rule" in capsys.readouterr().err


def test_later_differences_of_the_same_client_have_one_cause(tmp_path):
    """An order with a wrong state; whoever ordered then sees other products."""
    state: set[int] = set()

    def broken(reply, chance):
        reply.client = reply.number // 8 % 25
        if reply.route == ORDER and reply.client % 3 == 0:
            reply.document["state"] = "lost"
            state.add(reply.client)
        if reply.route == PAGE and reply.client in state:
            reply.text = reply.text.replace("Offers", "Sorry")

    def whole(reply, chance):
        reply.client = reply.number // 8 % 25

    base = [make_run(tmp_path / f"b{n}", seed=n, requests=800, fault=whole) for n in range(4)]
    new = []
    for n in range(4):
        state.clear()
        new.append(make_run(tmp_path / f"n{n}", seed=90 + n, requests=800, fault=broken))
    _, found = diff(tmp_path, base, new)
    first, second = [one for one in found["fields"] if one["different"]]
    assert (first["field"], first["after"], first["clients"]) == ("/state", None, 9)
    assert second["after"] == {"route": ROUTES[ORDER], "field": "/state"}


def test_other_traces_and_scenarios_are_refused_with_what_differs(base, tmp_path, capsys):
    other = TraceIdentity(path="other.trace", digest="d2", rows=1, first_at_ns=0, last_at_ns=1)
    run = make_run(tmp_path / "a", seed=1, trace=other)
    assert invoke(["diff", *sides_text(base, [run])]) == 2
    assert "different recordings (shop.trace, other.trace)" in capsys.readouterr().err
    run = make_run(tmp_path / "b", seed=1, scenario={"speed": 2.0})
    assert invoke(["diff", *sides_text(base, [run])]) == 2
    assert "different scenarios: speed: None and 2.0" in capsys.readouterr().err
    assert invoke(["diff", "base=recorded", *sides_text(base, base)]) == 2
    assert invoke(["diff", "new=recorded", f"base={base[0]}"]) == 2
    assert "the runs of exactly one other side" in capsys.readouterr().err
    assert invoke(["diff", *sides_text(base, base), "--values"]) == 2
    assert invoke(["diff", *sides_text(base, base[:1])]) == 2
    assert "given twice" in capsys.readouterr().err


def test_runs_without_responses_are_refused(base, tmp_path, capsys):
    write_document_at(tmp_path / "none")
    assert invoke(["diff", *sides_text(base, [tmp_path / "none"])]) == 2
    assert "kept no responses" in capsys.readouterr().err


def write_document_at(path):
    path.mkdir()
    write_document(path, 10)


def test_of_a_run_that_was_cut_short_the_common_part_is_compared(base, tmp_path):
    fault = planted(PRODUCT, lambda reply: reply.number > 300 and reply.document.update(stock=-1))
    new = [make_run(tmp_path / f"n{n}", seed=n, requests=600, fault=fault) for n in range(3)]
    new.append(make_run(tmp_path / "cut", seed=9, requests=200, ending=Ending(how="interrupted", at_s=0.2)))
    _, found = diff(tmp_path, base, new)
    assert found["requests"] == 200 and found["verdict"] == "SAME"
    assert any("did not end normally (interrupted)" in note for note in found["notes"])


def test_rows_after_damage_are_not_compared_even_if_a_later_file_is_whole(base, tmp_path, capsys):
    new = [make_run(tmp_path / f"n{n}", seed=n, requests=600) for n in range(4)]
    path = next((new[0] / "answers").iterdir())
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    whole = path.read_bytes()
    later = path.with_name("answers-000099.arrow")
    later.write_bytes(whole)
    assert later.name > path.name
    last_ns = int(Answers(new[0]).by_number("due_ns")["due_ns"].to_numpy().max())
    path.write_bytes(whole[: len(whole) // 2])
    answers = Answers(new[0])
    answers.by_number("due_ns")
    until_ns = answers.sound_until_ns()
    assert until_ns is not None and 0 < until_ns < last_ns
    later.unlink()
    _, found = diff(tmp_path, base, new)
    assert 0 < found["requests"] < 600 and found["verdict"] != "DIFFERENT"
    assert any("damaged files of responses" in note for note in found["notes"])
    path.write_bytes(whole[:100])
    assert invoke(["diff", *sides_text(base, new)]) == 2
    assert "damaged files of responses" in " ".join(capsys.readouterr().err.split())


def test_dropped_responses_and_codings_are_notes(base, tmp_path):
    figures = AnswerFigures(keep="all", kept=600, routes=list(ROUTES), dropped={"ring": 7})
    new = [make_run(tmp_path / f"n{n}", seed=n, requests=600, answers=figures) for n in range(4)]
    gzip = tmp_path / "gzip"
    make_run(gzip, seed=9, requests=600)
    for path in (gzip / "answers").iterdir():
        path.unlink()
    (gzip / "answers").rmdir()
    replies = [Response(PRODUCT, n, 0, 200, {"a": 1}) for n in range(600)]
    write_answers(gzip, replies, encoding=["gzip"] * 600)
    _, found = diff(tmp_path, base, [*new, gzip])
    assert any("7 ring" in note for note in found["notes"])
    assert any("content codings differ" in note and "gzip" in note for note in found["notes"])


def test_requests_without_a_response(tmp_path):
    """A time-out has no row; a row that was lost says nothing."""

    def run(name, numbers, dropped):
        path = tmp_path / name
        path.mkdir()
        write_answers(path, [Response(PRODUCT, n, 0, 200, {"a": 1}) for n in numbers])
        write_document(path, 400, answers=AnswerFigures(keep="all", routes=list(ROUTES), dropped=dropped))
        return path

    base = [run(f"base-{n}", range(400), {}) for n in range(4)]
    for name, dropped, verdict in (("late", {}, "DIFFERENT"), ("lost", {"ring": 100}, "SAME")):
        new = [run(f"{name}-{n}", [m for m in range(400) if m % 4], dropped) for n in range(4)]
        _, found = diff(tmp_path, base, new)
        assert found["verdict"] == verdict
        named = [(one["field"], one["kind"], one["across"]) for one in found["fields"]]
        assert named == ([("status", "absent", 0.25)] if verdict == "DIFFERENT" else [])


def test_what_some_runs_did_not_keep_is_not_compared(base, tmp_path, capsys):
    def kept(headers):
        return {"scenario": {"answers": {"headers": headers}}}

    def without(reply, chance):
        del reply.headers["cache-control"]

    few = [
        make_run(tmp_path / f"f{n}", seed=n, requests=400, fault=without, **kept(["age"])) for n in range(4)
    ]
    all_ = [
        make_run(tmp_path / f"a{n}", seed=9 + n, requests=400, **kept(["Cache-Control", "age"]))
        for n in range(4)
    ]
    code, found = diff(tmp_path, few, all_)
    assert (code, found["verdict"]) == (0, "SAME")
    assert any("not all runs kept these fields: header cache-control" in note for note in found["notes"])
    secrets = AnswerFigures(keep="all", routes=list(ROUTES), secrets_kept=True)
    run = make_run(tmp_path / "secrets", seed=1, answers=secrets)
    assert invoke(["diff", *sides_text(base, [run])]) == 2
    assert "kept secrets and the other did not" in capsys.readouterr().err


def test_a_run_without_bodies_beside_some_with(base, tmp_path):
    new = [make_run(tmp_path / f"n{n}", seed=n, requests=600, bodies=n > 0) for n in range(4)]
    _, found = diff(tmp_path, base, new)
    assert any("kept no bodies" in note for note in found["notes"])


def test_invalid_runs_are_refused(base, tmp_path):
    run = make_run(tmp_path / "invalid", seed=1, requests=600)
    document = json.loads((run / "run.json").read_bytes())
    document["validity"] = {
        "verdict": "INVALID",
        "reasons": [{"code": "LATE", "message": "it was late", "verdict": "INVALID", "advice": ""}],
    }
    (run / "run.json").write_text(json.dumps(document))
    code, found = diff(tmp_path, base, [run])
    assert (code, found["verdict"]) == (4, "INVALID") and "it was late" in found["sentence"]


HOSTILE = "<script>alert(1)</script>\x1b]52;c;Zm9v\x07\u202eevil | `x` @you"


def test_hostile_bodies_are_escaped_everywhere(base, tmp_path, capsys):
    def plant(reply):
        reply.document = reply.document | {HOSTILE: HOSTILE, "brand": HOSTILE}

    files = {name: tmp_path / f"d.{name}" for name in ("html", "junit", "markdown")}
    words = [f"--{name}={path}" for name, path in files.items()]
    accepted = tmp_path / "rules.toml"
    code, _ = with_fault(
        tmp_path, base, planted(PRODUCT, plant), *words, "--annotations", "--accept", accepted
    )
    assert code == 99
    said = capsys.readouterr()
    texts = [
        said.out,
        said.err,
        *(path.read_text() for path in (*files.values(), accepted, tmp_path / "diff.json")),
    ]
    for text in texts:
        assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    assert "<script>alert" not in files["html"].read_text()
    assert "<script>alert" not in re.sub(r"`[^`\n]*`", "", files["markdown"].read_text()), "but as code"
    ElementTree.fromstring(files["junit"].read_text())
    assert any(
        rule["field"] == f"/{HOSTILE.replace('/', '~1')}"
        for rule in tomllib.loads(accepted.read_text())["ignore"]
    )


def test_secrets_are_taken_out_of_examples(base, tmp_path):
    def plant(reply):
        reply.document["password"] = "hunter2"
        reply.document["name"] = "Authorization: Bearer abc.def.ghi123"
        reply.document["brand"] = {"api_key": "sk-live-12345"}

    _, found = with_fault(tmp_path, base, planted(PRODUCT, plant))
    text = json.dumps(found)
    assert "REDACTED" in text
    for secret in ("hunter2", "abc.def.ghi123", "sk-live-12345"):
        assert secret not in text


def test_fields_without_end_are_judged_as_one(tmp_path):
    def wide(reply, chance):
        reply.route, reply.headers = PRODUCT, {}
        reply.document = {f"k{reply.number}-{n}": n for n in range(100)}

    def other(reply, chance):
        wide(reply, chance)
        reply.document[f"k{reply.number}-99"] = -1

    base = [make_run(tmp_path / f"b{n}", seed=n, fault=wide, requests=200) for n in range(4)]
    new = [make_run(tmp_path / f"n{n}", seed=n, fault=other, requests=200) for n in range(4)]
    code, found = diff(tmp_path, base, new)
    assert code == 99 and any(
        one["field"] == "(other fields)" and one["different"] for one in found["fields"]
    )
    assert any("judged as one" in note for note in found["notes"])


def test_more_runs_have_more_labellings(base, tmp_path):
    rng = np.random.default_rng(1)
    runs = [make_run(tmp_path / f"r{n}", seed=int(rng.integers(1_000)), requests=80) for n in range(12)]
    code, found = diff(tmp_path, runs[:6], runs[6:])
    assert code in (0, 99) and found["labellings"] == 924


def test_wrong_words_are_usage_errors(base, capsys):
    assert invoke(["diff"]) == 2
    assert "diff needs the runs of two builds" in capsys.readouterr().err
    assert invoke(["diff", *sides_text(base, base), "--fail-on", "nonsense"]) == 2
    assert "'nonsense' is not one of different, inconclusive" in capsys.readouterr().err
    assert invoke(["diff", "base=/nowhere", "new=/nothing"]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert Path("/nowhere").exists() is False
