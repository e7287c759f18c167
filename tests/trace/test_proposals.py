"""What a recording proposes: nothing where there are no sessions, and no constant, date or chance."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from replay.trace import Trace
from replay.trace.importing import import_files
from replay.trace.proposals import Proposed, find_proposals, propose


def entry(number: int, client: int, **given: Any) -> dict[str, Any]:
    """One request of a HAR; `client` is its connection."""
    return {
        "startedDateTime": f"2026-11-29T16:{number // 60:02d}:{number % 60:02d}.000Z", "time": 1, "connection": str(client),
        "serverIPAddress": "127.0.0.1",
        "request": {
            "method": given.get("method", "GET"), "url": f"http://h{given['url']}",
            "headers": [{"name": name, "value": value} for name, value in given.get("headers", {}).items()],
            **({"postData": {"mimeType": "", "text": given["body"]}} if "body" in given else {}),
        },
        "response": {
            "status": 200, "headers": [{"name": "Content-Type", "value": "application/json"}],
            "content": {"mimeType": "application/json", "text": given.get("answer", "{}")},
        },
    }  # fmt: skip


def proposed(folder: Path, entries: list[dict[str, Any]]) -> Proposed:
    (folder / "a.har").write_text(json.dumps({"log": {"version": "1.2", "entries": entries}}))
    trace: Trace = import_files([folder / "a.har"], folder / "a.trace", overwrite=True)
    return propose(find_proposals(trace), trace.requests.routes, keeps_secrets=False, scenario="a")


def test_a_recording_without_sessions_proposes_nothing(tmp_path: Path) -> None:
    """A shop: pages, dates, currencies and versions come back as they were given, and items by chance."""
    rng = random.Random(5)
    entries = []
    for number in range(400):
        page, item = rng.randrange(1, 6), rng.randrange(1, 40)
        answer = {
            "page": page, "next": page + 1, "currency": "EUR", "version": "2026.11.3-rc1", "date": "2026-11-30",
            "items": [{"id": rng.randrange(1, 40), "price": "19.99", "tag": "standard-shipping"} for _ in range(5)],
        }  # fmt: skip
        url = rng.choice(
            [f"/items?page={page}&currency=EUR&date=2026-11-30", f"/items/{item}?v=2026.11.3-rc1", "/home"]
        )
        entries.append(entry(number, rng.randrange(8), url=url, answer=json.dumps(answer)))
        if number % 7 == 0:
            body = json.dumps(
                {"query": rng.choice(["red shoes", "hat", "coat"]), "limit": 20, "ship": "standard-shipping"}
            )
            entries.append(
                entry(number, 1, method="POST", url="/search", body=body, answer=json.dumps(answer))
            )
    found = proposed(tmp_path, entries)
    assert [rule for rule in found.rules if rule.is_active] == [] and not found.cookies and not found.split
    assert found.needed == []


def test_an_api_key_and_a_known_account_are_asked_for(tmp_path: Path) -> None:
    entries = [
        entry(
            number, 1, method="POST", url="/login", headers={"X-Api-Key": "K3y-of-the-shop"},
            body=json.dumps({"email": "ann@shop.example.org", "password": "s3cret-pass"}),
        )
        for number in range(3)
    ]  # fmt: skip
    found = proposed(tmp_path, entries)
    assert sorted(found.needed) == ["A_PASSWORD", "A_USER_EMAIL", "A_XAPIKEY"]
    rules = [rule.keys for rule in found.rules if rule.table == "set"]
    assert {"route": "POST /login", "json": "/email", "value": "{user_email}"} in rules
    assert {"route": "POST /login", "json": "/password", "value": "{password}"} in rules
    assert any(rule.get("header") == "X-Api-Key" and rule["value"] == "{xapikey}" for rule in rules)
