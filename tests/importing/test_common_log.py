"""The log scanner against its obvious twin, line by line."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replay.trace.importing.pseudonyms import Pseudonyms
from replay.trace.importing.secret_names import SECRET_NAMES, SECRET_SUFFIXES, SET_COOKIE
from tests.oracles.log_oracle import GOOD, expected, scan, target_case

pytestmark = pytest.mark.boundscheck


def joined(*parts: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(*parts).map(b"".join)


MONTHS = [b"Jan", b"Feb", b"Mar", b"Jul", b"Dec", b"Foo"]
STAMPS = joined(
    st.sampled_from([b"01", b"29", b"30", b"31", b"00", b"32", b"1x"]),
    st.just(b"/"),
    st.sampled_from(MONTHS),
    st.just(b"/"),
    st.sampled_from([b"1995", b"2000", b"2023", b"2024", b"1969", b"2261", b"2300", b"20a4"]),
    st.sampled_from([b":00:00:00", b":23:59:60", b":12:34:56", b":24:00:00", b":00:60:00", b":00:00:61"]),
    st.sampled_from([b" +0000", b" -0400", b" +0530", b" +2500", b" +0060", b" 0000+"]),
)
TOKENS = [
    b"/", b"/a", b"/users/17", b"?", b"&", b";", b"=", b"token", b"a", b"api_key", b"user%5Bpassword%5D",
    b"X-Amz-Signature", b"sid", b"code", b"\\x22", b'\\"', b"\\\\", b"\\xZZ", b"\\n", b"\\q", b" ", b"\xe4",
    b"\x00", b"#", b"..", b'"', b"jsessionid", b"value", b"%20", b"key", b"[token]",
]  # fmt: skip
TARGETS = joined(
    st.sampled_from([b"/", b"/", b"/", b"*", b"", b"http://h.example", b"https://u:p@H.example:8080/", b"x"]),
    st.lists(st.sampled_from(TOKENS), max_size=8).map(b"".join),
)
REQUESTS = joined(
    st.sampled_from(
        [
            b"GET ",
            b"GET ",
            b"POST ",
            b"get ",
            b"M-SEARCH ",
            b"GET",
            b"-",
            b"\\x16\\x03\\x01",
            b"A1 ",
            b"GET  ",
        ]
    ),
    TARGETS,
    st.sampled_from([b" HTTP/1.1", b" HTTP/2.0", b"", b" HTTP", b"  HTTP/1.0 ", b" HTTP/1.0"]),
)
ANSWERS = [
    b'" 200 17', b'" 404 -', b'" - 0', b'" 000 0', b'" 99 1', b'" 2000 1', b'" 200 x', b'" 200', b"",
    b'" 200 12x', b'"  200 1',
]  # fmt: skip
LINES = joined(
    st.sampled_from([b"10.0.0.1", b"::1", b"host.example", b"-", b"", b"a b"]),
    st.sampled_from([b" - - [", b" - frank [", b" - John Smith [", b" id - [", b" - - ", b" [", b" - [x] ["]),
    STAMPS,
    st.sampled_from([b'] "', b'] "', b'] "', b"] ", b' "']),
    REQUESTS,
    st.sampled_from(ANSWERS),
    st.sampled_from([b"", b"\r", b' "-" "curl/8"', b' "http://a/?token=b" "x \\" y"', b" " + b"9" * 30]),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES, max_size=30), st.booleans())
@example([GOOD, GOOD + b"\r", b"", b"x"], False)
@example([GOOD.replace(b"200 1713", b"200 " + b"1" * 18), GOOD.replace(b"1713", b"1" * 19)], False)
@example([GOOD.replace(b"/a", b"/" + b"a" * 65_500), GOOD.replace(b"/a", b"/" + b"a" * 65_400)], False)
@example([GOOD.replace(b"/a?b=1", b'/a"b'), GOOD.replace(b"/a?b=1", b'/a" 7 b')], False)
@example([GOOD.replace(b"/a?b=1", b"/a b  c"), GOOD.replace(b"/a?b=1 HTTP/1.0", b"/a b")], False)
def test_generated_lines_read_as_the_twin_reads_them(lines: list[bytes], keep_secrets: bool) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    good, counts, found = scan(lines, keep_secrets=keep_secrets)
    assert (good, counts) == expected(lines, keep_secrets=keep_secrets)
    assert found.rejects.lines == len(lines) == len(good) + sum(counts.values())


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 2), st.integers(0, 255)), max_size=4),
    st.binary(max_size=90),
)
def test_mutated_lines_read_as_the_twin_reads_them(edits: list[tuple[int, int, int]], noise: bytes) -> None:
    line = bytearray(GOOD + b' "http://referer/" "agent"')
    for at, kind, byte in edits:
        at %= len(line)
        if kind == 0:
            line[at] = byte
        elif kind == 1:
            line.insert(at, byte)
        else:
            del line[at]
    lines = [part.removesuffix(b"\r") for part in bytes(line).split(b"\n")] + [
        noise.replace(b"\n", b"").rstrip(b"\r")
    ]
    good, counts, _ = scan(lines)
    assert (good, counts) == expected(lines)


def test_a_method_that_ends_in_a_nul_is_none() -> None:
    good, counts, _ = scan([GOOD, GOOD.replace(b"GET ", b"GET\0 ")])
    assert len(good) == 1 and counts == {"no method": 1}


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        (b"/a?token=abc&b=1", b"/a?token=<abc>&b=1"),
        (b"/a?b=1&Access_Token=x;sid=2", b"/a?b=1&Access_Token=<x>;sid=<2>"),
        (b"/a;jsessionid=A1/b?x=1", b"/a;jsessionid=<A1>/b?x=1"),
        (b"/a/&token=abc", b"/a/&token=<abc>"),
        (b"/0123456789012345678901234567&sid=abc/b", b"/0123456789012345678901234567&sid=<abc>/b"),
        (
            b"/a?X-Amz-Signature=f00&user%5Bpassword%5D=p",
            b"/a?X-Amz-Signature=<f00>&user%5Bpassword%5D=<p>",
        ),
        (b"/a?tokens=3&monkey=1&code=&key", b"/a?tokens=3&monkey=1&code=&key"),
        (b"/caf\\xC3\\xA9 au lait", b"/caf%C3%A9%20au%20lait"),
        (b'/say?\\"hi\\"', b'/say?"hi"'),
    ],
)
def test_targets_by_hand(target: bytes, sent: bytes) -> None:
    good, _, found = scan([GOOD.replace(b"/a?b=1", target)])
    made = Pseudonyms(found.key)
    wanted = re.sub(rb"<(\w+)>", lambda value: made.of(value[1].decode()).encode(), sent)
    assert [line.target for line in good] == [wanted]
    assert found.secrets_dropped.get("query_values", 0) == sent.count(b"<")


def test_a_zone_that_changes_moves_the_instant_and_is_noted() -> None:
    good, _, found = scan([GOOD, GOOD.replace(b"02:00:00 -0400", b"08:00:00 +0200"), GOOD])
    assert [line.at_s for line in good] == [807_256_800] * 3
    assert (found.time_zone, found.time_zone_changed) == ("-0400", True)


def test_user_names_are_counted_as_dropped_and_not_kept() -> None:
    _, _, found = scan([GOOD, GOOD.replace(b" - - ", b" - frank "), GOOD.replace(b" - - ", b" - fr ank ")])
    assert found.secrets_dropped == {"user_names": 2}


def test_a_flood_of_made_up_methods_is_bounded() -> None:
    lines = [GOOD.replace(b"GET", b"M" + bytes([65 + i // 26, 65 + i % 26])) for i in range(100)]
    good, counts, _ = scan(lines)
    assert (len(good), counts) == (64, {"no method": 36})


def test_the_scanner_leaves_no_secret_that_the_cleaner_would_replace() -> None:
    assert [complaint for seed in range(150) if (complaint := target_case(seed))] == []


@pytest.mark.parametrize("after", ["", "+", "%20", "1", "_", "$", "%5B%5D"])
@pytest.mark.parametrize("operator", ["=", ":", ":[", "%3A", "=%22"])
def test_the_scanner_leaves_no_value_of_a_secret_name_that_the_cleaner_would_replace(
    after: str, operator: str
) -> None:
    names = [*SECRET_SUFFIXES, *SECRET_NAMES, SET_COOKIE, "x-user", "X-Real-IP", "id_token", "PHPSESSID"]
    lines = [GOOD.replace(b"/a?b=1", f"/a?{name}{after}{operator}abc123".encode()) for name in names]
    good, counts, _ = scan(lines)
    assert (good, counts) == expected(lines)


def test_what_a_line_gives_does_not_depend_on_the_lines_before_it() -> None:
    """The twin once remembered secret values from case to case: differences could not be repeated."""
    secret = GOOD.replace(b"/a?b=1", b"/a?token=abcdefgh12345")
    before = expected([GOOD.replace(b"/a?b=1", b"/abcdefgh12345")])
    assert expected([secret])[0] != []
    assert expected([GOOD.replace(b"/a?b=1", b"/abcdefgh12345")]) == before


@pytest.mark.parametrize(
    ("target", "stays"),
    [
        (b"/search?q=basic+training", True),
        (b"/search?q=token%20ring", True),
        (b"/a?h=Bearer+abc123def", False),
        (b"/a?h=bearer%20abcdefghijklmnopqrs", False),
        (b"/Basic%20Zm9vOmJhcg==", False),
        (b"/a?name=token&value=abc", False),
        (b"/a?name=color&value=red", True),
        (b"/cookie+=+abc", False),
        (b"/t?at=2024-01-01T12:30:00Z&_=1700000000123", True),
    ],
)
def test_credentials_are_told_from_words(target: bytes, stays: bool) -> None:
    good, _, _ = scan([GOOD.replace(b"/a?b=1", target)])
    assert (good[0].target == target) is stays


@pytest.mark.parametrize(
    "value", [b"/4111111111111111", b"/+491701234567", b"?token=abc123", b"?q=a@b.example"]
)
def test_what_must_be_cleaned_is_found_wherever_it_lies_in_a_target(value: bytes) -> None:
    lines = [GOOD.replace(b"/a?b=1", b"/" + b"a" * length + value) for length in range(70)]
    good, counts, _ = scan(lines)
    assert (good, counts) == expected(lines)
    assert not any(line.target.endswith(value) for line in good)
