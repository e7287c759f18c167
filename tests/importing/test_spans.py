"""Spans become requests: both generations of the conventions, both formats, and nothing that another request causes."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.cli import import_ as verb
from replay.trace import RecordedResponse, Trace
from replay.trace.importing import Options, import_files
from replay.trace.importing.spans.conventions import Unusable, asked, template_of
from replay.trace.importing.spans.entries import ELSEWHERE, NESTED, REPEATED, SENT, Entries
from replay.trace.importing.spans.model import Kind, Span, span_id
from tests.support.events import events

AT_NS = 1_700_000_000_000_000_000


def span(
    number: int,
    parent: int = 0,
    kind: int = 2,
    /,
    *,
    trace: int = 1,
    at_ns: int = 0,
    name: str = "",
    **attributes: Any,
) -> dict[str, Any]:
    """A span of OTLP; `__` in the name of an attribute is a dot, `___` a dash."""

    def value(of: Any) -> dict[str, Any]:
        if isinstance(of, list):
            return {"arrayValue": {"values": [value(each) for each in of]}}
        return {"intValue": str(of)} if isinstance(of, int) else {"stringValue": of}

    return {
        "traceId": f"{trace:032x}", "spanId": f"{number:016x}", "parentSpanId": f"{parent:016x}" if parent else "",
        "name": name, "kind": kind, "startTimeUnixNano": str(AT_NS + at_ns), "endTimeUnixNano": str(AT_NS + at_ns + 1_000),
        "attributes": [
            {"key": key.replace("___", "-").replace("__", "."), "value": value(of)} for key, of in attributes.items()
        ],
    }  # fmt: skip


def get(number: int, parent: int = 0, /, path: str = "/a", **more: Any) -> dict[str, Any]:
    return span(number, parent, **{"http__request__method": "GET", "url__path": path, **more})


def otlp(**services: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": name}}]},
                "scopeSpans": [{"spans": spans}],
            }
            for name, spans in services.items()
        ]
    }


def imported(folder: Path, *documents: dict[str, Any], service: str = "", indent: int | None = None) -> Trace:
    (folder / "a.json").write_text("\n".join(json.dumps(each, indent=indent) for each in documents) + "\n")
    return import_files([folder / "a.json"], folder / "a.trace", options=Options(service=service))


def paths(trace: Trace) -> list[str]:
    return [event.target.decode() for event in events(trace)]


def command(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(verb.command, [str(folder / "a.json"), "-o", str(folder / "c.trace"), *words])


CHAIN = otlp(
    gateway=[get(1, path="/in"), span(2, 1, 3)],
    shop=[get(3, 2, path="/shop"), span(4, 3, 1), span(5, 4, 3), get(8, 3, path="/shop/again")],
    stock=[get(6, 5, path="/stock")],
)


@pytest.mark.parametrize("indent", [None, 2])
def test_only_what_enters_the_system_is_sent(tmp_path: Path, indent: int | None) -> None:
    trace = imported(tmp_path, CHAIN, indent=indent)
    assert paths(trace) == ["/in"]
    assert trace.manifest.rejected == {"caused by another request": 3, "client or internal span": 3}
    assert any("gateway 1, shop 0, stock 0 (--service NAME" in each for each in trace.manifest.assumptions)


def test_children_may_come_before_their_parents_and_in_other_files(tmp_path: Path) -> None:
    for number, resource in enumerate(reversed(CHAIN["resourceSpans"])):
        (tmp_path / f"spans-{number}.json").write_text(json.dumps({"resourceSpans": [resource]}) + "\n")
    trace = import_files([tmp_path / f"spans-{number}.json" for number in range(3)], tmp_path / "a.trace")
    assert paths(trace) == ["/in"]


@pytest.mark.parametrize(
    ("service", "sent"), [("shop", ["/shop"]), ("stock", ["/stock"]), ("gateway", ["/in"])]
)
def test_the_share_of_one_service_is_what_others_send_it(
    tmp_path: Path, service: str, sent: list[str]
) -> None:
    trace = imported(tmp_path, CHAIN, service=service)
    assert paths(trace) == sent
    assert trace.manifest.rows + sum(trace.manifest.rejected.values()) == trace.manifest.lines == 7


def test_a_service_that_is_asked_again_by_way_of_another_is_asked_twice(tmp_path: Path) -> None:
    document = otlp(a=[get(1, path="/1"), get(3, 2, path="/3")], b=[get(2, 1, path="/2")])
    assert paths(imported(tmp_path, document, service="a")) == ["/1", "/3"]


def test_a_parent_that_was_not_recorded_is_said(tmp_path: Path) -> None:
    trace = imported(tmp_path, otlp(a=[get(1, 77), get(2)]))
    assert trace.rows == 2
    assert (
        "1 request whose parent is not in the recording: sent like requests without a parent"
        in trace.manifest.assumptions
    )


def test_a_batch_that_was_exported_twice_is_sent_once(tmp_path: Path) -> None:
    trace = imported(tmp_path, otlp(a=[get(1)]), otlp(a=[get(1)]))
    assert trace.rows == 1
    assert trace.manifest.rejected == {"span that came before": 1}


def test_an_unknown_service_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(CHAIN))
    refused = command(tmp_path, "--service", "shpo").exception
    assert "no service 'shpo'" in str(refused) and "gateway, shop, stock" in refused.hint  # type: ignore[union-attr]
    assert not (tmp_path / "c.trace").exists()


def test_a_service_is_for_spans_alone(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('10.0.0.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a HTTP/1.1" 200 19\n')
    assert "--service does not work with" in str(command(tmp_path, "--service", "shop").exception)


def test_headers_hosts_clients_and_responses_are_taken(tmp_path: Path) -> None:
    trace = imported(
        tmp_path,
        otlp(
            a=[
                get(
                    1, url__query="?q=1", server__address="Shop.Example", server__port=8443, client__address="10.0.0.7",
                    user_agent__original="curl/8", http__request__header__accept=["text/html", "*/*"],
                    http__request__header__content_type=["a/b"], http__request__header__authorization=["Bearer x"],
                    http__response__header__content___type=["text/html; charset=utf-8"], http__response__body__size=12,
                    http__response__status_code=404,
                )
            ]
        ),
    )  # fmt: skip
    (event,) = events(trace)
    assert (event.target, event.host, event.status, event.took_ns, event.bytes) == (
        b"/a?q=1",
        "shop.example:8443",
        404,
        1_000,
        12,
    )
    headers = trace.requests.headers(0)
    assert [pair for pair in headers if pair[0] != b"authorization"] == [
        (b"accept", b"text/html"), (b"accept", b"*/*"), (b"content-type", b"a/b"), (b"user-agent", b"curl/8"),
    ]  # fmt: skip
    credentials = dict(headers)[b"authorization"] or b""
    assert credentials.startswith(b"Bearer ") and len(credentials) == 8 and credentials != b"Bearer x"
    assert trace.response(0) == RecordedResponse(
        "text/html", ((b"content-type", b"text/html; charset=utf-8"),), 12
    )
    assert trace.manifest.secrets_by_name == {"authorization": 1}


def test_what_spans_do_not_have_is_said(tmp_path: Path) -> None:
    trace = imported(
        tmp_path,
        otlp(
            a=[
                span(1, http__request__method="POST", url__path="/a"),
                span(2, http__method="PUT", http__target="/b", http__request_content_length=0),
                span(3, http__request__method="GET", http__route="/health"),
                span(4, http__request__method="GET", http__route="/users/{id}"),
                span(5, http__target="/c", name="GET /c"),
                span(6, http__target="/d", name="handler"),
                span(7, rpc__system="grpc", rpc__method="Get"),
                span(8, name="job"),
            ]
        ),
    )
    assert sorted(paths(trace)) == ["/a", "/b", "/c", "/health"]
    assert trace.manifest.rejected == {
        "no path": 1, "no method": 1, "remote procedure call": 1, "server span without HTTP": 1,
    }  # fmt: skip
    said = trace.manifest.assumptions
    assert "1 request that had or may have had a body: sent without it, because spans have no bodies" in said
    assert "1 span without a method: taken from the name of the span" in said
    assert "1 span without a path: taken from the route, which has no parameters" in said
    assert "no span has a query: the instrumentation may leave out queries" in said


def test_routes_that_the_recording_names_are_those_of_the_trace(tmp_path: Path) -> None:
    trace = imported(
        tmp_path,
        otlp(a=[get(n, path=f"/shop/{n}x/rings", http__route="/shop/:name/rings") for n in range(1, 9)]),
    )
    assert [route.route for route in trace.manifest.routes] == ["GET /shop/{name}/rings"]


@pytest.mark.parametrize(
    ("route", "template"),
    [
        ("/users/:id", "/users/{id}"),
        ("/users/<int:id>/x", "/users/{id}/x"),
        ("/users/{id:[0-9]+}", "/users/{id}"),
        ("/users/[id]", "/users/{id}"),
        ("/a/*", "/a/*"),
        ("users", ""),
    ],
)
def test_routes_of_frameworks_are_templates(route: str, template: str) -> None:
    assert template_of(route) == template


def message(number: int, parent: int = 0, kind: int = 4, /, **more: Any) -> dict[str, Any]:
    return span(
        number,
        parent,
        kind,
        **{"messaging__system": "kafka", "messaging__destination__name": "orders", **more},
    )


def test_messages_are_records_without_values(tmp_path: Path) -> None:
    trace = imported(
        tmp_path,
        otlp(
            job=[
                message(1, messaging__kafka__message__key="k%1", messaging__destination__partition__id="3"),
                get(5),
                message(6, 5),
            ],
            worker=[message(2, 1, 5), message(3, 77, 5, messaging__batch__message_count=10)],
        ),
    )
    assert sorted(paths(trace)) == ["/a", "/orders/0", "/orders/3?key=k%251"]
    assert trace.manifest.methods.count("PRODUCE") == 1
    assert trace.manifest.options["topics"] == {"orders": 4}
    said = " ".join(trace.manifest.assumptions)
    assert "2 Kafka records without a value: replayed with null as the value" in said
    assert "9 Kafka records without a separate span" in said


def test_a_consumer_is_caused_by_what_it_links_to(tmp_path: Path) -> None:
    consumer = message(2, 0, 5, trace=2) | {"links": [{"traceId": f"{1:032x}", "spanId": f"{1:016x}"}]}
    assert paths(imported(tmp_path, otlp(job=[message(1)], worker=[consumer]))) == ["/orders/0"]


@pytest.mark.parametrize(
    "text",
    [
        '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":1,"attributes":[{"key":2}],"kind":[]}]}]}]}\n',
        '{"resourceSpans":7}\n',
        '{"resourceSpans":[{"scopeSpans":{"spans":[]}}]}\n',
        '{"resourceSpans":[]}\n{"resourceSpans":[{"resource"\n',
        '{"data":[{"traceID":"x","spans":[7,{"tags":{}},{"tags":[7]}],"processes":[]}]}\n',
        '{"data":[{"traceID":"x","spans":[]}, 7]}\n',
    ],
)
def test_what_is_no_span_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    result = command(tmp_path)
    assert result.exception is not None and "a.json" in str(result.exception)
    assert type(result.exception).__name__ in ("InputError", "UsageError")


KINDS: list[Kind] = ["server", "client", "internal", "consumer"]


def naive(spans: list[Span], requests: list[int], service: str | None) -> tuple[list[int], int]:
    """What `Entries.choose` says, by walking up from each request."""
    by_id: dict[Any, list[int]] = {}
    for place, each in enumerate(spans):
        by_id.setdefault(each.id, []).append(place)

    def above(place: int) -> int:
        each = spans[place]
        for of in (each.parent, each.link if each.kind == "consumer" else None):
            found = by_id.get(of, []) if of is not None else []
            if found:
                first = next((one for one in found if requests[one] >= 0), found[0])
                return -1 if first == place else first
        return -1

    seen, becomes, circles = set[Any](), list[int](), 0
    for place, each in enumerate(spans):
        if requests[place] < 0:
            continue
        repeated = (each.id, each.service) in seen
        seen.add((each.id, each.service))
        on, steps, nested = above(place), 0, False
        while on >= 0 and (service is None or spans[on].service == service) and steps < 100:
            nested = requests[on] >= 0
            on, steps = (-1 if nested else above(on)), steps + 1
        circles += steps == 100
        what = NESTED if nested else SENT
        what = ELSEWHERE if service is not None and each.service != service else what
        becomes.append(REPEATED if repeated else what)
    return becomes, circles


@given(
    st.lists(
        st.tuples(
            st.integers(1, 9),
            st.integers(0, 9),
            st.integers(0, 9),
            st.sampled_from("ab"),
            st.sampled_from(KINDS),
            st.booleans(),
        ),
        max_size=14,
    ),
    st.sampled_from([None, "a", "b"]),
)
@settings(deadline=None, max_examples=300)
def test_the_choice_is_that_of_walking_up(
    rows: list[tuple[int, int, int, str, Kind, bool]], service: str | None
) -> None:
    entries, spans, requests, count = Entries(), list[Span](), list[int](), 0
    for own, parent, link, of, kind, usable in rows:
        ids = [("t", str(number)) if number else None for number in (own, parent, link)]
        made = Span(ids[0], ids[1], ids[2], of, kind, "", 0, 0)
        usable = usable and kind in ("server", "consumer")
        requests.append(count if usable else -1)
        count += usable
        entries.add(made, requests[-1])
        spans.append(made)
    choice = entries.choose(count, service)
    becomes, circles = naive(spans, requests, service)
    assert choice.what.tolist() == becomes
    assert choice.circles == circles
    if service is None and not circles:
        assert Counter(becomes)[SENT] >= min(count, 1) or NESTED in becomes


def test_attributes_may_be_anything() -> None:
    values: list[Any] = [None, [], {}, 1.5, True, "", float("nan"), float("inf"), 1 << 80]
    for value in values:
        made = Span(
            None,
            None,
            None,
            "",
            "server",
            "",
            0,
            0,
            {"http.method": value, "http.target": value, "http.status_code": value},
        )
        with contextlib.suppress(Unusable):
            assert asked(made).status == -1


def test_ids_in_base64_keep_their_case() -> None:
    assert span_id("AAECAwQFBgcICQoLDA0ODw==", "aaECAwQFBgc=") != span_id(
        "AAECAwQFBgcICQoLDA0ODw==", "AAECAwQFBgc="
    )
    assert span_id("00AB" * 8, "00ABCDEF00ABCDEF") == span_id("00ab" * 8, "abcdef00abcdef")
