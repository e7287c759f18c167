"""What a source holds: memory of mirrored bodies, and its copy of standard input."""

from __future__ import annotations

import http.client
import os
import sys

import pytest

from replay.following.mirror import MirrorStream
from replay.following.pipe import StandardInput
from tests.support.waiting import wait_until


def test_the_memory_of_mirrored_bodies_is_given_back_exactly_once():
    stream = MirrorStream("127.0.0.1:0")
    assert stream._receiver is not None
    connection = http.client.HTTPConnection("127.0.0.1", stream._receiver.server.port)
    for _ in range(3):
        connection.request("POST", "/a", body=b"x" * 1_000)
        connection.getresponse().read()
    connection.close()
    wait_until(lambda: len(stream._exchanges) == 3)
    assert stream._budget.used == 3_000
    for exchange in next(stream.requests()):
        stream.taken(exchange)
    wait_until(lambda: stream._budget.used <= 0)
    stream.close()
    assert stream._budget.used == 0


def test_standard_input_is_closed_once_even_if_its_number_belongs_to_another_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as source:
        monkeypatch.setattr(sys, "stdin", source)
        stream = StandardInput()
        stream.close()
        other = os.open(os.devnull, os.O_RDONLY)
        stream.close()
        os.fstat(other)
        os.close(other)
        os.close(writing)
