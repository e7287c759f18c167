"""A scenario is read from TOML and flags; what is wrong in it is named by key, line and what was meant."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import replay.settings
from replay import units
from replay.cli.scenario_text import TABLES, scenario_text
from replay.errors import InputError, UsageError
from replay.protocols.registry import parse_target, protocol_of
from replay.protocols.scenario import load_scenario as load
from replay.settings.headers import parse_header
from replay.settings.kinds import AUTO
from replay.settings.scenario import Scenario
from replay.settings.table import SETTINGS
from tests.support.trace_data import Row, write_trace

S = units.SECOND_NS


def read(tmp_path: Path, text: str, **flags: object) -> Scenario:
    path = tmp_path / "s.toml"
    path.write_text(text)
    return load(path, flags, {name: f"--{name}" for name in flags})


def test_defaults_are_those_of_the_design() -> None:
    scenario = load()
    assert (scenario.methods, scenario.speed, scenario.rate_per_s) == (("GET", "HEAD"), 1, None)
    assert (scenario.timeout_ns, scenario.max_wait_ns) == (30 * S, 10 * S)
    assert (scenario.connections, scenario.threads) == (AUTO, AUTO)
    assert (scenario.breaker.on, scenario.breaker.share, scenario.breaker.over_ns) == (True, 0.5, 10 * S)
    assert scenario.x_replay and not scenario.allow_production and not scenario.allow


def test_every_kind_of_setting_is_read(tmp_path: Path) -> None:
    scenario = read(
        tmp_path,
        """
        target = "http://127.0.0.1:8080/base/"
        speed = "200%"
        duration = "1h30m"
        warm_up = 5
        methods = ["get", "POST"]
        connections = 64
        slo = ["p99<250ms", "errors<1%"]
        max_rate = "50/1m"
        [window]
        from = 18:00:00
        until = "+10m"
        tz = "Europe/Berlin"
        [headers]
        Authorization = "Bearer $TOKEN"
        [breaker]
        share = "20%"
        [limits]
        response_headers = "16KiB"
        [[body]]
        route = "POST /v1/users"
        template = "{n}"
        """,
    )
    assert (scenario.speed, scenario.duration_ns, scenario.warm_up_ns) == (2, 5400 * S, 5 * S)
    assert scenario.methods == ("GET", "POST")
    assert scenario.window.from_ == "18:00:00"
    assert (scenario.connections, scenario.breaker.share) == (64, 0.2)
    assert scenario.limits.response_headers_bytes == 16_384
    assert scenario.max_rate_per_s == pytest.approx(50 / 60)
    assert scenario.request_headers({"TOKEN": "x"})[-1] == ("Authorization", "Bearer x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('tagret = "http://x"', "line 1: tagret: there is no such setting (did you mean target?)"),
        ("\n\n[window]\nfrm = '1'", "line 4: window.frm: there is no such setting (did you mean from?)"),
        ("until = '+1m'", "line 1: until: there is no such setting (did you mean window.until?)"),
        ("qps = 5", "line 1: qps: there is no such setting (did you mean rate?)"),
        (
            "[[body]]\nroute='a'\nfile='b'\n[[body]]\nroutes='c'",
            "line 5: body[1].routes: there is no such setting",
        ),
        ("timeout = '30 parsecs'", "line 1: timeout: '30 parsecs' is not a time"),
        ("[breaker]\nover = '10 sec'", "line 2: breaker.over: '10 sec' is not a time"),
        ("speed = 0", "line 1: speed: '0' is not a factor"),
        ("speed = true", "line 1: speed: True is of the wrong type"),
        ("rate = [5]", "line 1: rate: [5] is of the wrong type"),
        ("x_replay = 'yes'", "line 1: x_replay: expected true or false, got a text"),
        ("target = 5", "line 1: target: expected a text, got a number"),
        ("window = 5", "line 1: window: expected a table, got a number"),
        ("allow = 'x'", "line 1: allow: expected a list, got a text"),
        ("engine = 'nativ'", "line 1: engine: 'nativ' is unknown (did you mean native?)"),
        ("connections = 'many'", "line 1: connections: 'many' is neither auto nor a valid number"),
        ("connections = 0", "line 1: connections: 0 is neither auto nor a valid number"),
        ("methods = ['GET', 'P OST']", "line 1: methods:"),
        ("slo = ['p99<1s', 'p9x<3ms']", "line 1: slo[1]:"),
        ("[window]\ntz = 'Europe/Belrin'", "(did you mean Europe/Berlin?)"),
        ("[headers]\n'Content-Length' = '3'", "line 2: headers.Content-Length:"),
        ("[headers]\n'a b' = '3'", "line 2: headers.a b:"),
        ("timeout = 0", "line 1: timeout: it must be above 0"),
        ("speed = 2\nrate = '5/s'", "line 1: speed: rate replaces the recorded times"),
        ("duration = '5s'\nwarm_up = '5s'", "line 2: warm_up: nothing is left to measure"),
        ("[[body]]\nroute = 'a'", "line 2: body[0].route: give either file or template"),
        ("host = 'a b'", "line 1: host:"),
        ("order = 'clients'", "line 1: order: 'clients' is unknown (did you mean client?)"),
        ("[retry]\non = ['503', '600']", "retry.on[1]: '600' is neither a status nor an outcome"),
        ("[retry]\nattempts = 0", "line 2: retry.attempts: "),
        (
            "target = 'kafka://b/t'\n[retry]\nattempts = 2",
            "line 3: retry.attempts: a Kafka producer retries by itself",
        ),
        ("connect = 'per-user'", "line 1: connect: 'per-user' is unknown"),
        ("client_connections = 0", "line 1: client_connections: "),
        ("idle_timeout = 0", "line 1: idle_timeout: it must be above 0"),
        ("rate = 'max'\nconnect = 'per-client'", "line 2: connect: a closed loop has no recorded clients"),
        (
            "target = 'kafka://b/t'\nconnect = 'per-request'",
            "line 2: connect: a Kafka producer has one connection",
        ),
        ("rate = 'max'\norder = 'client'", "line 2: order: a closed loop has no recorded clients"),
        (
            "target = 'kafka://b/t'\norder = 'client'",
            "line 2: order: a Kafka target sends no responses to wait for",
        ),
        ("[kafka]\nkey = '{clinet}'", "line 2: kafka.key: there is no placeholder 'clinet'"),
        (
            "[[also]]\ntarget = 'kafka://b/t'\nkey = '{path[x]}'",
            "also[0].key: there is no placeholder 'path[x]'",
        ),
        (
            "target = 'kafka://b/t'\n[headers]\nX-A = '1'",
            "line 3: headers.X-A: a record has only its recorded headers",
        ),
        ("target = 'kafka://b/t'\nhost = 'a.test'", "line 2: host: a record has only its recorded headers"),
        ('[[body]]\nroute = "a"\nfile = "b"\ncontent_type = "x\\r\\ny: z"', "line 4: body[0].content_type:"),
        ("a = [", "is not TOML"),
        (f"a = {'[' * 3000}", "is not TOML: it is nested too deeply"),
        ("seed = 1.5", "line 1: seed: expected a whole number"),
        ("[validity]\nsteal_share_suspekt = 1", "did you mean steal_share_suspect?"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises((UsageError, InputError)) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not UTF-8"):
        load(tmp_path / "binary.toml")


def test_an_editor_of_another_system(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbfspeed = 2\r\nseed = 3\r\n")
    assert (load(tmp_path / "s.toml").speed, load(tmp_path / "s.toml").seed) == (2, 3)


def test_flags_override_the_file_and_are_named_in_errors(tmp_path: Path) -> None:
    scenario = read(
        tmp_path, 'speed = 4\nallow = ["a.example"]\n[headers]\nA = "1"\nB = "2"', speed="8",
        allow=["b.example"], headers={"a": "3"}, **{"window.from": "+1m"},
    )  # fmt: skip
    assert scenario.speed == 8
    assert scenario.allow == ("a.example", "b.example")
    assert scenario.headers == {"B": "2", "a": "3"}
    assert scenario.window.from_ == "+1m"
    with pytest.raises(UsageError, match=r"^--timeout: '3 x' is not a time"):
        read(tmp_path, "timeout = 5", timeout="3 x")


def test_values_of_headers_and_bodies_are_never_saved(tmp_path: Path) -> None:
    scenario = read(
        tmp_path,
        '[headers]\nAuthorization = "Bearer hunter2"\n[[body]]\nroute = "POST /"\ntemplate = "pass=hunter2"',
    )
    saved = json.dumps(scenario.saved())
    assert "Authorization" in saved and "hunter2" not in saved
    assert json.loads(saved)["timeout"] == "30s"


def test_variables_in_headers() -> None:
    scenario = load(flags={"headers": {"A": "$X-${Y}-$$Z"}})
    assert scenario.request_headers({"X": "1", "Y": "2"})[-1] == ("A", "1-2-$Z")
    with pytest.raises(UsageError, match="the environment variable Y is not set"):
        scenario.request_headers({"X": "1"})
    with pytest.raises(UsageError, match="cannot be sent"):
        scenario.request_headers({"X": "1\r\nEvil: yes", "Y": ""})


def test_headers_that_users_set_replace_our_own() -> None:
    names = [name for name, _ in load(flags={"headers": {"user-agent": "x"}}).request_headers({})]
    assert names == ["Accept", "user-agent"]


def test_headers_of_the_command_line() -> None:
    assert parse_header("A:  b: c ") == ("A", "b: c")
    for text, said in (
        ("A", "has no value"),
        ("a b: c", "not a header's name"),
        ("Host: x", "Host cannot be set"),
    ):
        with pytest.raises(UsageError, match=said):
            parse_header(text)


def test_a_target_is_taken_apart() -> None:
    target = parse_target("http://Staging.example:8080/base/path/")
    assert (target.host, target.port, target.base_path) == ("staging.example", 8080, "/base/path")
    assert target.authority == "staging.example:8080"
    assert parse_target("http://x").authority == "x"
    ipv6 = parse_target("http://[::1]:81")
    assert (ipv6.host, ipv6.port) == ("::1", 81)
    assert parse_target("http://[::1]:81").authority == "[::1]:81"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no target"),
        ("127.0.0.1:8080", "has no scheme"),
        ("ftp://x", "ftp targets"),
        ("http://", "is not a URL"),
        ("http://x:99999", "Port out of range"),
        ("http://x:0", "no port 0"),
        ("http://u:p@x", "contains a user name"),
        ("http://x/?a=b", "has a query"),
        ("http://x/a b", "is not a URL"),
        ("http://x/\r\nEvil: 1", "is not a URL"),
    ],
)
def test_what_is_no_target(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        parse_target(text)


def test_the_scenario_that_init_writes_can_be_read_as_it_is_and_with_every_key_set(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(0), Row(5, "POST", b"/v1/users")])
    text = scenario_text(trace, "t.trace", "http://127.0.0.1:1", everything=True)
    plain = read(tmp_path, text)
    assert plain == load(flags={"target": "http://127.0.0.1:1", "trace": "t.trace"})
    assert 'route = "POST /v1/users"' in text
    lines = [re.sub(r"^# (\w+ = |\[\[)", r"\1", line) for line in text.splitlines()]
    exclusive = ("rate = ",)
    every = read(tmp_path, "\n".join(line for line in lines if not line.startswith(exclusive)))
    assert every.window.from_ == "18:00" and every.body[0].route == "POST /v1/users"
    assert every.slo and every.headers and every.validity == plain.validity
    named = {line.removeprefix("# ").partition(" = ")[0] for line in text.splitlines() if " = " in line}
    assert {setting.name for setting in SETTINGS.values() if setting.table is None} - TABLES.keys() <= named
    assert every.actions and every.values


def test_the_scenario_that_init_writes_is_short(tmp_path: Path) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(0), Row(5, "POST", b"/v1/users")])
    text = scenario_text(trace, "t.trace", "http://127.0.0.1:1")
    assert read(tmp_path, text) == load(flags={"target": "http://127.0.0.1:1", "trace": "t.trace"})
    assert len(text.splitlines()) < 80
    assert "# timeout = " in text and "# slo = " in text and "route = " in text and "[kafka]" not in text
    lines = [re.sub(r"^# (\w+ = |\[\[)", r"\1", line) for line in text.splitlines()]
    assert read(tmp_path, "\n".join(lines)).duration_ns == 600 * S


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"timeot": "5s"}, "timeot: there is no such setting (did you mean timeout?)"),
        ({"window": {"fron": "+1m"}}, "window.fron: there is no such setting (did you mean from?)"),
        ({"qps": 5}, "qps: there is no such setting (did you mean rate?)"),
        ({"compression": "gzip"}, "there is no such setting (did you mean kafka.compression_type?)"),
        (
            {"kafka": {"compression": "gzip"}},
            "kafka.compression: there is no such setting (did you mean kafka.compression_type?)",
        ),
    ],
)
def test_an_unknown_setting_of_a_program_names_the_nearest_one(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load(None, {"target": "http://127.0.0.1:1", **settings})
    assert said in str(caught.value)


def test_settings_name_no_protocol_in_their_code() -> None:
    """A protocol declares what it refuses; a group of settings knows none, nor finds one at run time."""
    for path in (Path(replay.settings.__file__).parent / "groups").glob("*.py"):
        tree = ast.parse(path.read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not {"is_kafka", "import_module"} & names, path.name
        assert not [name for name in imported if name and "protocols" in name], path.name


def test_what_a_protocol_refuses_is_a_setting() -> None:
    for scheme in ("http", "kafka"):
        protocol = protocol_of(f"{scheme}://127.0.0.1:1/t")
        assert {*protocol.refuses, *protocol.refuses_alone} <= SETTINGS.keys()


def test_a_kafka_target_refuses_settings_of_requests_only_where_nothing_else_is_sent_to(
    tmp_path: Path,
) -> None:
    alone = "target = 'kafka://127.0.0.1:9/t'\nhost = 'a.test'\n"
    with pytest.raises(UsageError, match="line 2: host: a record has only its recorded headers"):
        read(tmp_path, alone)
    read(tmp_path, f"{alone}[[also]]\ntarget = 'http://127.0.0.1:81'\n")
    with pytest.raises(UsageError, match="--order: a Kafka target sends no responses"):
        read(tmp_path, "", target="kafka://127.0.0.1:9/t", order="client")
