"""Rules for secrets, by the real command: what they change, what is reported, and what is wrong with them."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from replay.cli import replay
from replay.trace import Trace

SECRET = "Zq7Xv3Wk9Tp5"


def har(*entries: dict[str, Any]) -> str:
    """Requests with their responses, a second apart."""
    made = [
        {
            "startedDateTime": f"2026-11-29T16:28:{number:02d}.000Z", "time": 1,
            "request": {
                "method": entry.get("method", "POST"), "url": f"http://h{entry.get('url', '/p')}",
                "headers": [{"name": name, "value": value} for name, value in entry.get("headers", {}).items()],
                **({"postData": {"mimeType": "", "text": entry["body"]}} if "body" in entry else {}),
            },
            "response": {
                "status": 200, "headers": [{"name": "Content-Type", "value": "application/json"}],
                "content": {"mimeType": "application/json", "text": entry.get("answer", "{}")},
            },
        }
        for number, entry in enumerate(entries)
    ]  # fmt: skip
    return json.dumps({"log": {"version": "1.2", "entries": made}})


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(replay, list(map(str, words)))


def imported(folder: Path, text: str, *words: str | Path, name: str = "a.trace") -> Trace:
    (folder / "a.har").write_text(text)
    result = run("import", folder / "a.har", "-o", folder / name, "--no-jitter", *words)
    assert result.exit_code == 0, (result.output, result.exception)
    return Trace.open(folder / name)


def sent(trace: Trace) -> list[tuple[str, dict[str, str], str]]:
    """Target, headers and body of each request."""
    found = []
    for number in range(trace.manifest.requests):
        request = trace.requests.get(number)
        headers = trace.requests.headers(request.headers) if request.headers >= 0 else ()
        body = trace.requests.body(request.body).decode() if request.body >= 0 else ""
        pairs = {name.decode().lower(): (value or b"").decode() for name, value in headers}
        found.append((request.target.decode(), pairs, body))
    return found


EVERYWHERE: list[dict[str, Any]] = [
    {"url": f"/login?token={SECRET}", "answer": json.dumps({"data": {"token": SECRET}})},
    {"headers": {"Authorization": f"Bearer {SECRET}", "Cookie": f"theme=dark; sid={SECRET}"}},
    {"body": json.dumps({"password": SECRET, "n": 1})},
    {"body": f"user=a&password={SECRET}"},
    {"url": f"/reset/{SECRET}", "method": "GET"},
    {"url": f"/any?q={SECRET}", "method": "GET"},
]


def test_a_value_has_one_pseudonym_wherever_it_stands(tmp_path: Path) -> None:
    trace = imported(tmp_path, har(*EVERYWHERE))
    requests = sent(trace)
    made = requests[0][0].removeprefix("/login?token=")
    assert len(made) == len(SECRET) and made != SECRET
    assert requests[1][1]["authorization"] == f"Bearer {made}"
    assert requests[1][1]["cookie"].endswith(f"; sid={made}") and "dark" not in requests[1][1]["cookie"]
    assert (
        json.loads(requests[2][2]) == {"password": made, "n": 1}
        and requests[3][2] == f"user=a&password={made}"
    )
    assert [requests[4][0], requests[5][0]] == [f"/reset/{made}", f"/any?q={made}"]
    response = trace.response(0)
    assert response is not None and json.loads(response.body or b"") == {"data": {"token": made}}
    assert not [file for file in trace.path.iterdir() if SECRET.encode() in file.read_bytes()]


def test_the_report_names_place_name_and_what_became_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.har").write_text(har(*EVERYWHERE))
    done = run(
        "import", tmp_path / "a.har", "-o", tmp_path / "a.trace", "--json", "--scrub", "cookie:theme=keep"
    )
    report = json.loads(done.output)
    assert report["keep_secrets"] is False
    changed = {(one["place"], one["name"]): (one["how"], one["count"]) for one in report["scrubbed"]}
    assert changed["query", "token"] == ("pseudonym", 1) and changed["cookie", "sid"] == ("pseudonym", 1)
    assert changed["response json", "token"] == ("pseudonym", 1) and ("cookie", "theme") not in changed
    assert changed["form", "password"] == changed["json", "password"] == ("pseudonym", 1)
    assert Trace.open(tmp_path / "a.trace").manifest.scrubbed == report["scrubbed"]


RULES = [
    ("json:/user/email=drop", {"body": '{"user": {"email": "x", "n": 1}}'}, '{"user": {"n": 1}}'),
    ("json:/user/n=drop", {"body": '{"user": {"email": "x", "n": 1}}'}, '{"user": {"email": "x"}}'),
    (
        "json:/list/*/a=drop",
        {"body": '{"list": [{"a": "x"}, {"a": "y", "b": 2}]}'},
        '{"list": [{}, {"b": 2}]}',
    ),
    ("json:/token=keep", {"body": '{"token": "abc"}'}, '{"token": "abc"}'),
    ("form:password=drop", {"body": "user=a&password=b&c=d"}, "user=a&c=d"),
    ("form:password=drop", {"body": "user=a&password=b"}, "user=a"),
    ("form:password=keep", {"body": "user=a&password=b"}, "user=a&password=b"),
]


@pytest.mark.parametrize(("rule", "entry", "wanted"), RULES)
def test_rules_drop_and_keep(rule: str, entry: dict[str, Any], wanted: str, tmp_path: Path) -> None:
    trace = imported(tmp_path, har(entry), "--scrub", rule)
    assert sent(trace)[0][2] == wanted
    assert trace.manifest.options["scrub"] == [rule] and not trace.manifest.assumptions


def test_rules_for_headers_queries_and_cookies(tmp_path: Path) -> None:
    entry = {
        "url": "/p?a=1&lang=de&token=abc",
        "headers": {"X-User": "ann", "X-Plan": "gold", "Cookie": "a=b; c=d"},
    }
    rules = [
        "header:x-user=keep",
        "header:X-PLAN=pseudonym",
        "query:token=drop",
        "query:lang=pseudonym",
        "cookie:a=drop",
    ]
    trace = imported(tmp_path, har(entry), *(word for rule in rules for word in ("--scrub", rule)))
    target, headers, _ = sent(trace)[0]
    assert target.startswith("/p?a=1&lang=") and target.endswith(("&", target[-2:])) and "token" not in target
    assert "lang=de" not in target and headers["x-user"] == "ann" and headers["x-plan"] != "gold"
    assert headers["cookie"].startswith("c=") and "a=" not in headers["cookie"]


def test_a_rule_that_names_nothing_is_reported(tmp_path: Path) -> None:
    trace = imported(tmp_path, har({"body": '{"email": "x"}'}), "--scrub", "json:/emial=drop")
    assert trace.manifest.assumptions == ["--scrub json:/emial=drop matches no value of this recording"]


@pytest.mark.parametrize(("rule", "said"), [
    ("jsn:/a=drop", "did you mean json?"), ("json:/a=dorp", "did you mean drop?"), ("json:a.b=drop", "json:/a/b=drop"),
    ("password", "write PLACE:NAME=HOW"), ("path:/a=drop", "there is no place 'path'"),
])  # fmt: skip
def test_a_wrong_rule_is_named_with_the_nearest_one(rule: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.har").write_text(har({}))
    result = run("import", tmp_path / "a.har", "-o", tmp_path / "a.trace", "--scrub", rule)
    assert result.exit_code != 0 and rule in str(result.exception) and not (tmp_path / "a.trace").exists()
    assert said in f"{result.exception} {getattr(result.exception, 'hint', '')}"


def test_recordings_agree_by_a_key_and_only_by_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k" * 32)
    texts = [har({"url": f"/{word}?token={SECRET}"}) for word in ("first", "second")]
    made = [
        sent(imported(tmp_path, text, *key, name=f"{number}{len(key)}.trace"))[0][0].partition("=")[2]
        for key in ((), ("--scrub-key-file", str(tmp_path / "key")))
        for number, text in enumerate(texts)
    ]
    assert made[0] != made[1] and made[2] == made[3] != SECRET
    (tmp_path / "short").write_bytes(b"k")
    refused = run("import", tmp_path / "a.har", "-o", tmp_path / "x", "--scrub-key-file", tmp_path / "short")
    assert refused.exit_code != 0 and "at least 16 bytes" in str(refused.exception)


def test_kept_secrets_are_private_and_said(tmp_path: Path) -> None:
    trace = imported(tmp_path, har(*EVERYWHERE), "--keep-secrets")
    assert trace.manifest.options["keep_secrets"] is True and trace.manifest.scrubbed == []
    assert sent(trace)[1][1]["authorization"] == f"Bearer {SECRET}"
    assert {stat.S_IMODE(file.stat().st_mode) for file in trace.path.iterdir()} == {0o600}
    (tmp_path / "x.log").write_text(
        '1.1.1.1 - - [29/Nov/2026:16:28:40 +0000] "GET /a?token=b HTTP/1.1" 200 1\n'
    )
    assert run("import", tmp_path / "x.log", "-o", tmp_path / "x.trace", "--keep-secrets").exit_code == 0
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "x.trace").iterdir()} == {0o600}
    both = run(
        "import", tmp_path / "x.log", "-o", tmp_path / "y.trace", "--keep-secrets", "--scrub", "query:a=drop"
    )
    assert both.exit_code != 0 and "--scrub" in str(both.exception)


def test_a_secret_that_a_response_gave_out_under_another_name_is_reported(tmp_path: Path) -> None:
    text = har(
        {"answer": json.dumps({"data": SECRET * 2})}, {"headers": {"Authorization": f"Bearer {SECRET * 2}"}}
    )
    trace = imported(tmp_path, text)
    assert any("--scrub 'json:/data=pseudonym'" in sentence for sentence in trace.manifest.assumptions)
    again = imported(tmp_path, text, "--scrub", "json:/data=pseudonym", name="b.trace")
    assert not again.manifest.assumptions
    assert not [file for file in again.path.iterdir() if SECRET.encode() in file.read_bytes()]


def test_run_takes_rules_for_logs_and_refuses_them_for_traces(tmp_path: Path) -> None:
    log = '1.1.1.1 - - [29/Nov/2026:16:28:40 +0000] "GET /a?code=b HTTP/1.1" 200 1\n'
    (tmp_path / "x.log").write_text(log)
    words = ["--target", "http://127.0.0.1:9", "--dry-run"]
    assert run("run", tmp_path / "x.log", *words, "--scrub", "query:code=keep").exit_code == 0
    run("import", tmp_path / "x.log", "-o", tmp_path / "x.trace")
    refused = run("run", tmp_path / "x.trace", *words, "--scrub", "query:code=keep")
    assert refused.exit_code != 0 and "is a trace already" in str(refused.exception)
