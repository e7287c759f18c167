"""The response parser: whole answers at any split, what frames them, what is refused; and h11 as the judge."""

import numpy as np
import pytest
from numba import njit

from replay_native.ground.shared import clears
from replay_native.http1 import parser as http1
from tests.oracles import http1_oracle as oracle
from tests.oracles import http1_pairs as pairs
from tests.oracles.http1_forms import FORMS, Form
from tests.oracles.http1_oracle import ANSWERS, Verdict

pytestmark = pytest.mark.boundscheck

LONG = 1_000
"""Bytes. A longer answer is parsed at once: cut everywhere it would take the time of all others together."""


def verdict(data: bytes, *, head: bool = False, eof: bool = False) -> Verdict:
    return oracle.ours(data, list(range(1, len(data))), head, eof)


@pytest.mark.parametrize("data", ANSWERS)
def test_an_answer_is_the_same_at_every_split(data):
    eof = data.startswith(b"HTTP/1.0")
    whole = oracle.ours(data, [], False, eof)
    assert whole.state == "whole"
    for cut in range(len(data) + 1):
        assert oracle.ours(data, [cut], False, eof) == whole
    assert verdict(data, eof=eof) == whole


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_is_read_as_it_must_be(form: Form):
    cuts = [] if len(form.data) > LONG else list(range(1, len(form.data)))
    for pieces in ([], cuts):
        found = oracle.ours(form.data, pieces, form.head, form.eof)
        assert found.state == form.state
        if form.state == "whole":
            assert (found.status, found.body_bytes, found.keeps_alive) == (form.status, form.body, form.keeps)
        assert oracle.reason(form.data, pieces, form.head) == form.reason


def test_a_reason_has_words():
    assert {form.reason for form in FORMS} | {http1.STATUS_RANGE} == set(range(len(http1.REASONS)))
    assert all(http1.REASONS[1:])


def test_no_answer_is_read_by_what_another_has_left():
    answers = [form.data for form in FORMS if len(form.data) <= LONG]
    assert len(set(answers)) >= 200
    assert pairs.difference(answers) is None


def test_a_field_that_is_not_beside_the_others_is_found_when_compiled():
    apart = np.dtype([("parse_state", "i8"), ("other", "i8"), ("position", "i8")])
    clear = clears(["parse_state", "position"])

    @njit
    def cleared(rows):
        clear(rows[0])

    with pytest.raises(Exception, match="are not adjacent"):
        cleared(np.zeros(1, apart))


def test_headers_without_end_are_malformed_at_the_limit():
    data = b"HTTP/1.1 200 OK\r\nX: " + b"a" * oracle.HEADER_LIMIT
    assert oracle.ours(data, [1_000, 2_000], False, False).state == "malformed"


def test_an_answer_to_head_has_no_body():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    assert verdict(answer, head=True) == Verdict("whole", 200, 0, 1, True)
    assert verdict(answer).state == "more"


def test_a_body_until_close_ends_with_the_connection():
    answer = b"HTTP/1.1 200 OK\r\n\r\nsome text"
    assert verdict(answer).state == "more"
    assert verdict(answer, eof=True) == Verdict("whole", 200, 9, 0, False)


def test_it_agrees_with_h11_on_mutated_answers():
    complaints = [complaint for seed in range(4_000) if (complaint := oracle.one_case(seed))]
    assert not complaints, complaints[0]
