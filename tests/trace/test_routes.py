"""Routes: which parts of a path are variable, and how many routes there may be."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.trace import (
    Trace,
    TraceWriter,
    manifest,
    routes,
)
from replay.trace.dictionary import flatten

pytestmark = pytest.mark.boundscheck


def traced(folder: Path, targets: list[bytes], *, method: str = "GET") -> Trace:
    with TraceWriter(folder / "a.trace") as writer:
        ids = [writer.add_request(method, target) for target in targets]
        stamps = np.arange(len(ids), dtype=np.int64)
        writer.add_events(stamps, np.array(ids, dtype=np.uint32), np.zeros(len(ids), dtype=np.uint32))
    assert writer.trace is not None
    return writer.trace


def labels(trace: Trace) -> list[str]:
    """The route of each event."""
    requests = trace.requests
    return [requests.routes[requests.get(int(i)).route] for batch in trace.batches() for i in batch.request]


BY_HAND = {
    b"/": "/",
    b"/users/17": "/users/{id}",
    b"/users/17/orders?page=2": "/users/{id}/orders",
    b"/users/-3;v=1": "/users/{id}",
    b"/a/123e4567-E89b-12d3-a456-426614174000/b": "/a/{uuid}/b",
    b"/blob/d41d8cd98f00b204e9800998ecf8427e": "/blob/{hash}",
    b"/s/dQw4w9WgXcQ_7hPqLm2Z": "/s/{hash}",
    b"/s/01ARZ3NDEKTSV4RRFFQ69G5FAV": "/s/{hash}",
    b"/days/2024-05-17": "/days/{date}",
    b"/days/2024-05-17T10:00:00Z/x": "/days/{date}/x",
    b"/days/2024-13-17": "/days/2024-13-17",
    b"/u/jo@example.org": "/u/{email}",
    b"/@.A": "/{email}",
    b"/a@b.json": "/{email}",
    b"/files/17.json": "/files/{id}.json",
    b"/v1/my-post-about-the-2024-elections": "/v1/my-post-about-the-2024-elections",
    b"/api/1.0/x": "/api/1.0/x",
    b"/" + b"a" * 60: "/{slug}",
    b"/" + b"/".join([b"d"] * 20): "/" + "/".join(["d"] * 16) + "/*",
    b"*": "*",
    b"/a//b/": "/a//b/",
    b"/deadbeef": "/deadbeef",
}


def test_templates_by_hand(tmp_path: Path) -> None:
    trace = traced(tmp_path, list(BY_HAND))
    assert labels(trace) == [f"GET {template}" for template in BY_HAND.values()]


def _segment(segment: str) -> str:
    """The obvious twin of the kernel's classes."""
    if segment.startswith("{"):
        return segment[:48]
    extension = re.search(r"(?<=.)\.(?![0-9]+$)[0-9A-Za-z]{1,5}$", segment)
    stem, ending = (segment[: extension.start()], extension[0]) if extension else (segment, "")
    separators = len(re.findall("[-_]", stem))
    mixed = (re.search("[a-z]", stem) and re.search("[A-Z]", stem)) or separators == 0
    token = re.fullmatch(r"[\w-]{20,1000}", stem, re.ASCII) and len(re.findall(r"[0-9]", stem)) >= 3
    for name, found in (
        ("literal", len(stem) > 1000),
        ("email", "@" in stem),
        ("literal", not re.search(r"[0-9]", stem)),
        ("id", re.fullmatch(r"-?[0-9]+", stem)),
        ("uuid", re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", stem)),
        ("date", re.match(r"[0-9]{4}-(0[1-9]|1[0-2])(\Z|-[0-9][0-9](\Z|[Tt]))", stem)),
        ("hash", re.fullmatch(r"[0-9a-fA-F]{16,}", stem)),
        ("hash", token and separators * 8 <= len(stem) and mixed),
    ):
        if found and name != "literal":
            return "{" + name + "}" + (ending if name != "email" else "")
        if found:
            break
    return "{slug}" if len(segment) > 48 else segment


SEGMENTS = st.one_of(
    st.from_regex(r"[0-9a-fA-F]{1,24}", fullmatch=True),
    st.from_regex(r"[a-zA-Z0-9_-]{1,30}(\.[a-z0-9]{1,6})?", fullmatch=True),
    st.from_regex(r"[0-9]{4}-[0-9][0-9](-[0-9][0-9])?[tTx]?", fullmatch=True),
    st.from_regex(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}x?", fullmatch=True),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?;#"), max_size=60),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(SEGMENTS, min_size=1, max_size=5), min_size=1, max_size=60))
def test_templates_are_those_of_the_twin(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]
) -> None:
    trace = traced(tmp_path_factory.mktemp("routes"), ["/".join(["", *path]).encode() for path in paths])
    assert labels(trace) == ["GET /" + "/".join(_segment(segment) for segment in path) for path in paths]


def templates_of(segments: list[str]) -> list[str]:
    """The templates of segments, each the path of a request: no segment is folded with others."""
    data, offsets = flatten([b"/" + segment.encode() for segment in segments])
    finder = routes.RouteFinder(["GET"])
    methods = np.zeros(len(segments), np.uint8)
    _, ids = finder._number(offsets, data, methods, 0, routes.TEMPLATES_MAX)
    strings = finder._table.strings()
    return [strings[number].decode().removeprefix("GET /") for number in ids.tolist()]


PIECES = [
    "@", ".", ".A", ".json", "-", "_", "7", "x", "{", "2024-05", "2024-05-17", "T1", "deadbeefdeadbeef",
    "123e4567-e89b-12d3-a456-426614174000", "dQw4w9WgXcQ_7hPqLm2Z", "v" * 49, "w" * 1001,
]  # fmt: skip


@pytest.mark.parametrize(
    "segments",
    [
        ["".join(letters) for size in range(6) for letters in itertools.product("@.-_0aG{", repeat=size)],
        ["".join(pieces) for count in range(4) for pieces in itertools.product(PIECES, repeat=count)],
    ],
    ids=["letters", "pieces"],
)
def test_the_template_of_every_short_segment_is_the_twins(segments: list[str]) -> None:
    found = templates_of(segments)
    assert len(found) == len(segments)
    wrong = [
        (segment, template)
        for segment, template in zip(segments, found, strict=True)
        if template != _segment(segment)
    ]
    assert not wrong, f"{len(wrong)}, as {wrong[:5]}"


def test_many_rare_children_become_a_slug_and_popular_ones_keep_their_names(tmp_path: Path) -> None:
    posts = [b"/blog/post-" + bytes(97 + int(digit) for digit in str(index)) for index in range(500)]
    trace = traced(tmp_path, posts + [b"/blog/about"] * 40 + [post + b"/comments" for post in posts])
    counted = {route.route: route.rows for route in trace.manifest.routes}
    assert counted == {"GET /blog/{slug}": 500, "GET /blog/{slug}/comments": 500, "GET /blog/about": 40}
    assert trace.manifest.routes_folded == {"GET /blog/{slug}": 500}


def test_routes_stay_under_their_limit(tmp_path: Path) -> None:
    words = ["".join(chr(97 + (index // 26**place) % 26) for place in range(3)) for index in range(60)]
    targets = [f"/{a}/{b}".encode() for a in words for b in words]
    trace = traced(tmp_path, [*targets, *[b"/kept/path"] * 9])
    counted = {route.route: route.rows for route in trace.manifest.routes}
    assert len(counted) <= manifest.ROUTES_MAX
    assert sum(counted.values()) == trace.rows
    assert counted["GET /kept/path"] == 9
    assert any(label.endswith("/*") for label in counted)
    assert labels(trace)[-1] == "GET /kept/path"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "e", "7", "{x}"]), max_size=4), max_size=60))
def test_a_full_table_only_makes_routes_coarser(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "TEMPLATES_MAX", 12)
        patch.setattr(routes, "SLUG_CHILDREN", 3)
        patch.setattr(routes, "RARE_SHARE", 0.9)
        trace = traced(tmp_path_factory.mktemp("full"), ["/".join(["", *path]).encode() for path in paths])
    counted = {route.route: route.rows for route in trace.manifest.routes}
    found = labels(trace)
    assert {label: found.count(label) for label in set(found)} == counted
    for path, label in zip(paths, found, strict=True):
        segments = label.removeprefix("GET /").split("/")
        for given_, labelled in zip(path, segments, strict=False):
            if label == "GET *" or labelled == "*":
                break
            assert labelled in (given_, "{slug}", "{id}")


def test_rows_count_and_not_only_distinct_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.trace.request_writer.DEDUPE_ENTRIES_MAX", 1)
    trace = traced(tmp_path, [b"/a", b"/a", b"/b", b"/b", b"/a"])
    assert {route.route: route.rows for route in trace.manifest.routes} == {"GET /a": 3, "GET /b": 2}
