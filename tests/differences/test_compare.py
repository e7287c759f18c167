"""`replay compare` reports responses beside speed, and gates on them only where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from replay.cli.commands import invoke
from tests.support.compare_data import make_side, rewrite
from tests.support.response_data import ROUTES, START_NS, Reply, reply_of, write_answers


def replies(seed, wrong):
    """What the shop answers, with one field that may be wrong."""
    import random
    from datetime import UTC, datetime

    noise = random.Random(seed)
    made = [reply_of(number, noise, datetime.fromtimestamp(START_NS / 1e9, UTC)) for number in range(300)]
    for reply in made:
        if wrong and reply.route == 0:
            reply.document["stock"] = -1
    return made


def with_answers(side: str, wrong: bool) -> str:
    """Responses for the runs of a side."""
    for number, name in enumerate(side.partition("=")[2].split(",")):
        made: list[Reply] = replies(number + 100 * wrong, wrong)
        write_answers(Path(name), made)
        rewrite(Path(name), answers={"keep": "all", "kept": len(made), "routes": list(ROUTES)})
    return side


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sides")
    plain = [make_side(folder, label, 4, seed, run_sd=0.001) for seed, label in ((1, "base"), (50, "new"))]
    other = [make_side(folder, label, 4, seed, run_sd=0.001) for seed, label in ((1, "old"), (50, "changed"))]
    base, new = (with_answers(side, wrong) for side, wrong in zip(other, (False, True), strict=True))
    return plain, [base.replace("old=", "base="), new.replace("changed=", "new=")]


def compare(tmp_path, sides, *more):
    place = tmp_path / "compare.json"
    code = invoke(
        [
            "compare",
            *sides,
            "--sequential",
            "--tolerance",
            "100%",
            "-m",
            "p50",
            "--plain",
            f"--json={place}",
            *more,
        ]
    )
    return code, json.loads(place.read_bytes()) if place.exists() else None


def test_responses_stand_beside_speed(sides, tmp_path, capsys):
    files = {name: tmp_path / f"c.{name}" for name in ("junit", "markdown", "html")}
    code, found = compare(tmp_path, sides[1], *(f"--{name}={path}" for name, path in files.items()))
    assert code == 0 and found["verdict"] == "NO_REGRESSION" and found["exit_code"] == 0
    assert found["responses"]["verdict"] == "DIFFERENT"
    assert [one["field"] for one in found["responses"]["fields"] if one["different"]] == ["/stock"]
    assert "responses DIFFERENT" in capsys.readouterr().out
    suite = ElementTree.fromstring(files["junit"].read_text())
    assert not suite.findall(".//failure") and "/stock" in files["markdown"].read_text()
    assert "/stock" in files["html"].read_text()


def test_they_fail_it_where_that_is_asked_for(sides, tmp_path):
    junit = tmp_path / "c.xml"
    for words in (("--fail-on", "different"), ("--fail-on", "inconclusive,different")):
        code, found = compare(tmp_path, sides[1], *words, f"--junit={junit}")
        assert code == found["exit_code"] == 99
        (failure,) = ElementTree.fromstring(junit.read_text()).findall(".//failure")
        assert failure.attrib["type"] == "value"
    assert compare(tmp_path, sides[1], "--fail-on", "inconclusive")[0] == 0


def test_a_gate_needs_responses(sides, tmp_path, capsys):
    code, found = compare(tmp_path, sides[0])
    assert code == 0 and found["responses"] is None
    (tmp_path / "compare.json").unlink()
    assert compare(tmp_path, sides[0], "--fail-on", "different") == (2, None)
    assert "kept no responses" in capsys.readouterr().err
    mixed = [sides[0][0], sides[1][1]]
    code, found = compare(tmp_path, mixed)
    assert found["responses"] is None and any("responses are not compared" in note for note in found["notes"])
