"""Run folders with kept responses of a small shop, written without a target: for tests and benchmarks of comparing them.

Every response holds what makes byte comparison useless: ids, dates, a shuffled set, a measured float, a token, the age of
a cache entry. A fault is planted by a function that changes the document of a response.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from replay.ledger.accounts import Accounts, AccountsDetail
from replay.ledger.host import Host
from replay.ledger.validity import Validity
from replay.results.answers import AnswersWriter
from replay.results.document import (
    AnswerFigures,
    ClockPair,
    Connections,
    Ending,
    Generator,
    Latencies,
    Latency,
    RouteFigures,
    RunDocument,
    TraceIdentity,
)

ROUTES = ("GET /products/{id}", "GET /search", "POST /orders", "GET /pages/{name}")
TRACE = TraceIdentity(path="shop.trace", digest="d1", rows=100, first_at_ns=0, last_at_ns=1)
START_NS = 1_790_000_000_000_000_000
CURRENCIES = ("EUR", "USD", "SEK")


@dataclass
class Reply:
    """One response that a fault may change."""

    route: int
    number: int
    client: int
    status: int
    document: Any
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""


Fault = Callable[[Reply, random.Random], None]


def reply_of(number: int, noise: random.Random, at: datetime, data: int = 0) -> Reply:
    """What the shop answers to request `number`: the same in every run, but for its noise. Another `data` is what another
    database has.
    """
    same = random.Random(number + (data << 32))
    route, client = number % len(ROUTES), number % 97
    headers = {"age": str(noise.randrange(600)), "cache-control": "max-age=60"}
    made = (_product, _search, _order, None)[route]
    if made is None:
        return Reply(route, number, client, 200, None, headers, _page(same, noise, at))
    status = 201 if route == 2 else 200
    return Reply(route, number, client, status, made(number, same, noise, at), headers)


def _meta(noise: random.Random, at: datetime) -> dict[str, Any]:
    moment = at + timedelta(milliseconds=noise.randrange(10_000))
    return {
        "request_id": f"{noise.getrandbits(128):032x}",
        "served_at": moment.isoformat(timespec="milliseconds"),
        "took_ms": round(noise.lognormvariate(1, 0.5), 4),
        "node": f"node-{noise.randrange(3)}",
    }


def _product(number: int, same: random.Random, noise: random.Random, at: datetime) -> dict[str, Any]:
    tags = [f"tag-{same.randrange(40)}" for _ in range(5)]
    noise.shuffle(tags)
    return {
        "id": number // 4,
        "name": f"Product {same.randrange(900)}",
        "price": {"amount": same.randrange(100, 99_999) / 100, "currency": same.choice(CURRENCIES)},
        "stock": same.randrange(50),
        "available": same.random() < 0.9,
        "rating": round(same.uniform(1, 5), 3),
        "description": "A thing of use " * same.randrange(1, 4),
        "brand": {"id": same.randrange(90), "name": f"Brand {same.randrange(90)}", "country": "SE"},
        "tags": tags,
        "discount": None if same.random() < 0.5 else same.randrange(5, 50),
        "token": f"{noise.getrandbits(160):040x}",
        "meta": _meta(noise, at),
    }


def _search(number: int, same: random.Random, noise: random.Random, at: datetime) -> dict[str, Any]:
    items = [
        {
            "id": same.randrange(10**6),
            "title": f"Hit {same.randrange(500)}",
            "price": same.randrange(100, 9_999) / 100,
            "score": round(same.random() + noise.gauss(0, 1e-4), 6),
        }
        for _ in range(same.randrange(2, 7))
    ]
    return {
        "query": f"q{same.randrange(99)}",
        "total": same.randrange(2, 900),
        "items": items,
        "facets": {"size": ["S", "M", "L"], "colour": same.sample(["red", "blue", "green", "black"], 3)},
        "next": f"/search?page={same.randrange(9)}",
        "meta": _meta(noise, at),
    }


def _order(number: int, same: random.Random, noise: random.Random, at: datetime) -> dict[str, Any]:
    lines: list[dict[str, Any]] = [
        {
            "sku": f"S{n}{same.randrange(99)}",
            "quantity": same.randrange(1, 5),
            "price": same.randrange(100, 999) / 100,
        }
        for n in range(same.randrange(1, 5))
    ]
    noise.shuffle(lines)
    return {
        "order_id": f"o-{noise.getrandbits(48):012x}",
        "created_at": int(at.timestamp()) + noise.randrange(60),
        "state": same.choice(["new", "paid", "held"]),
        "total": round(sum(line["price"] * line["quantity"] for line in lines), 2),
        "currency": same.choice(CURRENCIES),
        "lines": lines,
        "shipping": {
            "method": same.choice(["post", "courier"]),
            "days": same.randrange(1, 9),
            "free": same.random() < 0.4,
        },
        "meta": _meta(noise, at),
    }


def _page(same: random.Random, noise: random.Random, at: datetime) -> str:
    body = "".join(f"<li class=item>Offer {same.randrange(900)}</li>" for _ in range(4))
    token = f"{noise.getrandbits(64):016x}"
    return (
        f"<html><head><title>Page {same.randrange(20)}</title></head><body><h1>Offers</h1><ul>{body}</ul>"
        f'<form><input type=hidden name=csrf value="{token}"></form><footer>{at:%Y-%m-%d %H:%M}</footer></body></html>'
    )


def make_run(
    path: Path,
    *,
    seed: int,
    requests: int = 400,
    fault: Fault | None = None,
    bodies: bool = True,
    label: int = 0,
    data: int = 0,
    scenario: Mapping[str, Any] | None = None,
    **more: Any,
) -> Path:
    """A run folder with `requests` responses. Runs of other seeds have other noise; `more` changes run.json."""
    noise, chance = random.Random(seed), random.Random(seed + 1)
    at = datetime.fromtimestamp(START_NS / 1e9, UTC) + timedelta(minutes=label)
    replies = []
    for number in range(requests):
        reply = reply_of(number, noise, at, data)
        if fault is not None:
            fault(reply, chance)
        replies.append(reply)
    path.mkdir(parents=True)
    write_answers(path, replies, bodies=bodies)
    write_document(path, requests, label=label, scenario=scenario or {}, **more)
    return path


def write_answers(path: Path, replies: list[Reply], *, bodies: bool = True, **columns: Any) -> None:
    """The files of `replies`, in batches."""
    writer = AnswersWriter(path)
    for begin in range(0, len(replies), 4_096):
        part = replies[begin : begin + 4_096]
        data = [msgspec.json.encode(r.document) if r.document is not None else r.text.encode() for r in part]
        json = np.array([r.document is not None for r in part])
        forms = np.where(json, 1, np.where([bool(r.text) for r in part], 3, 0))
        writer.write(
            {
                "number": np.array([r.number for r in part], np.uint64),
                "client": np.array([r.client for r in part], np.uint32),
                "route": np.array([r.route for r in part], np.uint32),
                "due_ns": np.array([r.number * 1_000_000 for r in part], np.int64),
                "status": np.array([r.status for r in part], np.int16),
                "type": ["application/json" if is_json else "text/html" for is_json in json],
                "length": np.array([len(body) for body in data], np.int64),
                "form": forms.astype(np.uint8),
                "digest": np.array([hash(body) & 0xFFFFFFFFFFFFFFFF for body in data], np.uint64),
                "headers": [[(name, value.encode()) for name, value in r.headers.items()] for r in part],
                "body": data if bodies else None,
            }
            | columns
        )
    writer.close()


def write_document(path: Path, requests: int, *, label: int = 0, **more: Any) -> None:
    """A run.json for such a folder."""
    ones: dict[str, Any] = {f.name: 1 for f in msgspec.structs.fields(Latency) if f.required}
    latency = Latency(**ones)
    given: dict[str, Any] = {
        "replay_version": "0",
        "started_at": "",
        "ended_at": "",
        "start": ClockPair(0, START_NS + label * 60 * 10**9),
        "duration_s": requests / 1_000,
        "interrupted": False,
        "ending": Ending(at_s=requests / 1_000),
        "closed_loop": False,
        "target": "http://127.0.0.1:8080",
        "trace": TRACE,
        "accounts": Accounts(),
        "accounts_detail": AccountsDetail(),
        "validity": Validity(),
        "latency": Latencies(service=latency, first_byte=latency),
        "routes": [RouteFigures(route=name, count=requests // 4, share=0.25, outcomes={}) for name in ROUTES],
        "generator": Generator(
            engine="native", lanes=1, cpu_s=0, lanes_cpu_s=0, control_cpu_s=0, busy_share=0
        ),
        "connections": Connections(),
        "max_wait_ns": 10**10,
        "answers": AnswerFigures(keep="all", kept=requests, routes=list(ROUTES)),
        "host": Host(),
    }
    (path / "run.json").write_bytes(msgspec.json.encode(RunDocument(**(given | more))))


def make_sides(
    folder: Path, fault: Fault | None = None, runs: int = 4, seed: int = 1, **more: Any
) -> tuple[list[Path], list[Path]]:
    """Runs of base, and of a build with a fault, in turns."""
    base = [make_run(folder / f"base-{n}", seed=100 * seed + n, label=2 * n, **more) for n in range(runs)]
    new = [
        make_run(folder / f"new-{n}", seed=100 * seed + 50 + n, label=2 * n + 1, fault=fault, **more)
        for n in range(runs)
    ]
    return base, new
