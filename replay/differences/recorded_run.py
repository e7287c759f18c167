"""Writes the responses of a recording in the format in which a run keeps them, so that the same code reads both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from replay.results.answers import FORMS, AnswersWriter
from replay.trace import Trace
from replay.trace.importing.codings import BadCoding, coding_of, decoded
from replay.trace.responses import RecordedResponse

from .reading import KeptRun

_ROWS = 4_096
_NONE, _JSON, _TEXT, _HTML, _BINARY, _UNREADABLE = range(len(FORMS))
_TEXTS = (
    "text/",
    "application/xml",
    "application/javascript",
    "application/x-www-form-urlencoded",
    "image/svg",
)


def write_recorded(trace: Trace, runs: Sequence[KeptRun], place: Path) -> list[str]:
    """Write the recorded responses of all requests to which the runs received a response.

    Return notes on requests that have no recorded response.
    """
    place.mkdir()
    requests = _requests(runs)
    statuses = _statuses(trace, requests)
    names = _kept_headers(runs[0])
    writer = AnswersWriter(place)
    without = 0
    for begin in range(0, len(requests[0]), _ROWS):
        rows: list[dict] = []
        for at in range(begin, min(begin + _ROWS, len(requests[0]))):
            number, copy, client, route, due_ns = (int(column[at]) for column in requests)
            response = trace.response(number) if number < trace.rows else None
            if response is None:
                without += 1
                continue
            rows.append(
                _row(response, names) | {"number": number, "copy": copy, "client": client, "route": route, "due_ns": due_ns}
                | {"status": int(statuses.get(number, 0))}
            )  # fmt: skip
        if rows:
            writer.write({name: [row[name] for row in rows] for name in rows[0]})
    writer.close()
    return [f"requests without a recorded response: {without:,} of {len(requests[0]):,}"] if without else []


def _kept_headers(run: KeptRun) -> set[bytes]:
    """Return the names of the headers that a run kept, in lower case."""
    names: set[bytes] = set()
    for batch in run.answers.batches("headers"):
        found = batch["headers"].flatten().field("name").unique()
        names |= {name.lower().encode() for name in found.to_pylist()}
    return names


def _requests(runs: Sequence[KeptRun]) -> tuple[np.ndarray, ...]:
    """Return number, copy, client, route and due time of every request, by ascending number."""
    names = ("number", "copy", "client", "route", "due_ns")
    tables = [run.answers.by_number(*names) for run in runs]
    columns = [np.concatenate([table[name].to_numpy() for table in tables]) for name in names]
    keys = columns[0].astype(np.uint64) << np.uint64(32) | columns[1].astype(np.uint64)
    _, first = np.unique(keys, return_index=True)
    return tuple(column[first] for column in columns)


def _statuses(trace: Trace, requests: tuple[np.ndarray, ...]) -> dict[int, int]:
    """Return the recorded statuses by the number of the request."""
    wanted = np.unique(requests[0].astype(np.int64))
    found: dict[int, int] = {}
    begin = 0
    for batch in trace.batches():
        own = wanted[(wanted >= begin) & (wanted < begin + len(batch))]
        found.update(zip(own.tolist(), batch.status[own - begin].tolist(), strict=True))
        begin += len(batch)
    return found


def _row(response: RecordedResponse, names: set[bytes]) -> dict:
    """Return one recorded response as a run would keep it."""
    coding = coding_of(response.headers)
    form = _form_of(response)
    body = None if response.cut else response.body
    if body is not None:
        try:
            body = decoded(body, coding)
        except BadCoding:
            body, form = None, _UNREADABLE
    return {
        "type": response.type,
        "encoding": coding.decode("latin-1") or "identity",
        "length": response.size,
        "form": form,
        "digest": 0,
        "headers": [
            (name.decode("latin-1"), value or b"")
            for name, value in response.headers
            if name.lower() in names
        ],
        "body": body,
        "cut": response.cut,
    }


def _form_of(response: RecordedResponse) -> int:
    if response.size == 0 or response.body == b"":
        return _NONE
    if response.type.endswith(("/json", "+json")):
        return _JSON
    if response.type in ("text/html", "application/xhtml+xml"):
        return _HTML
    return _TEXT if response.type.startswith(_TEXTS) else _BINARY
