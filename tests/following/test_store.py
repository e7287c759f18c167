"""Requests that wait, in blocks that are given up."""

from __future__ import annotations

import numpy as np
import pytest

from replay.following import store as store_module
from replay.following.store import RequestStore
from replay.trace.dictionary import flatten
from replay_native.trace import columns


def _add(store: RequestStore, targets: list[bytes]) -> np.ndarray:
    data, offsets = flatten(targets)
    count = len(targets)
    return store.add(
        data,
        offsets,
        np.zeros(count, np.uint8),
        np.arange(count, dtype=np.uint32),
        np.full(count, -1, np.int64),
    )


def test_requests_are_found_by_their_ids() -> None:
    store = RequestStore()
    targets = [f"/{number}".encode() * (number % 7 + 1) for number in range(1_000)]
    ids = [*_add(store, targets[:300]), *_add(store, targets[300:])]
    assert [store.target(int(number)) for number in ids] == targets


def test_a_block_goes_once_none_of_its_requests_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BLOCK_ROWS", 10)
    monkeypatch.setattr(store_module, "BLOCKS_KEPT", 1)
    store = RequestStore()
    ids = _add(store, [b"/%d" % number for number in range(45)])
    assert store.target(int(ids[0])) == b"/0"
    store.keep(ids[:1])
    store.release(ids[:40])
    assert store.target(int(ids[0])) == b"/0", "a copy of it still waits"
    store.release(ids[:1])
    assert [store.target(int(ids[row])) for row in (0, 10, 20)] == [b"/0", None, None]
    assert store.target(int(ids[44])) == b"/44"
    more = _add(store, [b"/again"] * 30)
    assert {store.target(int(number)) for number in more} == {b"/again"}


def test_kernels_read_what_was_added() -> None:
    store = RequestStore()
    ids = _add(store, [b"/one", b"/three"])
    place = int(ids[1]) >> columns.BATCH_BITS
    assert store.table[place, columns.DATA] and store.table[place, columns.OFFSETS]


def test_a_target_larger_than_a_block_has_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BLOCK_BYTES", 16)
    store = RequestStore()
    targets = [b"/a", b"/" + b"x" * 100, b"/b"]
    assert [store.target(int(number)) for number in _add(store, targets)] == targets
