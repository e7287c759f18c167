"""Generated recordings that resemble real ones: popular and rare paths, many user agents and clients.

All formats contain the same requests. A recording of several blocks repeats one block with other rare paths, and in common
and combined logs each time an hour later, so that it grows as a real recording does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BLOCK_ROWS = 1_000_000
POPULAR, CLIENTS, AGENTS = 3_000, 60_000, 1_500
RARE_SHARE, QUERY_SHARE, REFERER_SHARE = 0.05, 0.2, 0.6

_WORDS = [
    "account",
    "api",
    "assets",
    "basket",
    "blog",
    "brand",
    "cart",
    "category",
    "checkout",
    "contact",
    "data",
    "feed",
]
_WORDS += [
    "help",
    "images",
    "items",
    "list",
    "login",
    "media",
    "news",
    "offers",
    "orders",
    "page",
    "photos",
    "post",
]
_WORDS += ["profile", "search", "shop", "static", "store", "tag", "topics", "user", "v1", "v2"]
_SYSTEMS = (
    "Windows NT 10.0; Win64; x64",
    "Macintosh; Intel Mac OS X 10_15_7",
    "X11; Linux x86_64",
    "Linux; Android 13; K",
)
_MARK = "k000"


@dataclass(frozen=True)
class Request:
    """The parts of one recorded request."""

    at_s: float
    client: str
    method: str
    target: str
    status: int
    size: int
    took_s: float
    referer: str
    agent: str


def _agents(random: np.random.Generator) -> list[str]:
    versions = random.integers(0, 9_000, size=(AGENTS, 3))
    return [
        f"Mozilla/5.0 ({_SYSTEMS[a % 4]}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{100 + a % 30}.0.{b}.{c % 200}"
        " Safari/537.36"
        for a, b, c in versions.tolist()
    ]


def _popular(random: np.random.Generator) -> list[str]:
    paths = []
    for number in range(POPULAR):
        words = [_WORDS[i] for i in random.integers(0, len(_WORDS), size=random.integers(1, 5))]
        paths.append("/" + "/".join(words) + (f"/{number}" if number % 3 else f"-{number}.html"))
    return paths


def requests(rows: int = BLOCK_ROWS, seed: int = 1) -> Iterator[Request]:
    """Yield the requests of one block, an hour in time order."""
    random = np.random.default_rng(seed)
    agents, popular = _agents(random), _popular(random)
    clients = [f"{a}.{b}.{c}.{d}" for a, b, c, d in random.integers(1, 255, size=(CLIENTS, 4)).tolist()]
    ranks = np.minimum(random.zipf(1.2, rows) - 1, POPULAR - 1).tolist()
    rare, asks, refers = (random.random(rows) < share for share in (RARE_SHARE, QUERY_SHARE, REFERER_SHARE))
    who = (random.pareto(1.1, rows) * CLIENTS / 50).astype(np.int64) % CLIENTS
    methods = np.where(random.random(rows) < 0.08, "POST", "GET").tolist()
    statuses = random.choice([200, 200, 200, 200, 200, 304, 301, 404, 500], rows).tolist()
    sizes, tooks = random.integers(200, 60_000, rows).tolist(), random.gamma(2, 0.03, rows).tolist()
    stamps = np.sort(random.random(rows) * 3600).tolist()
    for i in range(rows):
        target = f"/shop/{_MARK}/item/{i * 7919 % 99_999_989}" if rare[i] else popular[ranks[i]]
        if asks[i]:
            target += f"?page={i % 40}&sort=price&utm_source=mail"
        client = int(who[i])
        yield Request(
            stamps[i], clients[client], methods[i], target, statuses[i], sizes[i], tooks[i],
            "https://www.example.com" + popular[ranks[i - 1]] if refers[i] else "-", agents[client % AGENTS],
        )  # fmt: skip


def _log_stamp(at_s: float) -> str:
    return f"10/Oct/2023:00:{int(at_s) // 60:02d}:{int(at_s) % 60:02d} +0000"


def _iso_stamp(at_s: float) -> str:
    return f"2023-10-10T00:{int(at_s) // 60:02d}:{int(at_s) % 60:02d}.{int(at_s * 1000) % 1000:03d}Z"


def common(r: Request) -> str:
    """Return a line in the common log format."""
    return f'{r.client} - - [{_log_stamp(r.at_s)}] "{r.method} {r.target} HTTP/1.1" {r.status} {r.size}\n'


def combined(r: Request) -> str:
    """Return a line in the combined log format: the common one with referer and user agent."""
    return common(r)[:-1] + f' "{r.referer}" "{r.agent}"\n'


def nginx_json(r: Request) -> str:
    """Return a line of JSON by nginx with escape=json, whose keys are the names of nginx's variables."""
    return json.dumps({
        "time_iso8601": _iso_stamp(r.at_s), "remote_addr": r.client, "request_method": r.method,
        "request_uri": r.target, "status": str(r.status), "body_bytes_sent": str(r.size),
        "request_time": f"{r.took_s:.3f}", "http_referer": r.referer, "http_user_agent": r.agent,
    }, separators=(",", ":")) + "\n"  # fmt: skip


def caddy(r: Request) -> str:
    """Return a line of Caddy's JSON, whose headers have no fixed order because they are a map of Go."""
    headers = [("User-Agent", [r.agent]), ("Accept-Encoding", ["gzip, br"]), ("Referer", [r.referer])]
    at = r.size % 3
    return json.dumps({
        "level": "info", "ts": round(1_696_896_000 + r.at_s, 6), "logger": "http.log.access", "msg": "handled request",
        "request": {
            "remote_ip": r.client, "remote_port": str(1024 + r.size), "client_ip": r.client, "proto": "HTTP/2.0",
            "method": r.method, "host": "www.example.com", "uri": r.target, "headers": dict(headers[at:] + headers[:at]),
        },
        "bytes_read": 0, "user_id": "", "duration": round(r.took_s, 9), "size": r.size, "status": r.status,
        "resp_headers": {"Content-Type": ["text/html; charset=utf-8"]},
    }, separators=(",", ":")) + "\n"  # fmt: skip


def csv(r: Request) -> str:
    """Return a line of a CSV file with the columns of CSV_HEADER."""
    return f"{_iso_stamp(r.at_s)},{r.method},{r.target},{r.client},{r.status},{r.took_s * 1000:.3f}\n"


def gor(r: Request) -> str:
    """Return a request and its response as GoReplay records them; a POST has a body."""
    number = f"{int(r.at_s * 1e6):024x}"
    at_ns = 1_696_896_000_000_000_000 + int(r.at_s * 1e9)
    body = (
        json.dumps({"id": r.size, "quantity": r.status, "note": "a" * (r.size % 600)})
        if r.method == "POST"
        else ""
    )
    more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    return (
        f"1 {number} {at_ns} 0\n{r.method} {r.target} HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: {r.agent}\r\n"
        f"Accept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, br\r\n{more}\r\n{body}\n🐵🙈🙉\n"
        f"2 {number} {at_ns + int(r.took_s * 1e9)} {int(r.took_s * 1e9)}\nHTTP/1.1 {r.status} OK\r\n"
        f"Content-Type: text/html\r\nContent-Length: {r.size % 900}\r\n\r\n{'b' * (r.size % 900)}\n🐵🙈🙉\n"
    )


WRITERS: dict[str, Callable[[Request], str]] = {
    "common": common, "combined": combined, "nginx-json": nginx_json, "caddy": caddy, "csv": csv, "gor": gor,
}  # fmt: skip

CSV_HEADER = "time,method,path,client,status,ms\n"


def block(name: str, rows: int = BLOCK_ROWS) -> bytes:
    """Return one block in a format of WRITERS, without a header."""
    return "".join(map(WRITERS[name], requests(rows))).encode()


def write(path: Path, name: str, blocks: int = 1, rows: int = BLOCK_ROWS) -> Path:
    """Write a recording of `blocks` blocks of `rows` rows, and return its path.

    Each block is an hour later than the one before, but only in common and combined logs.
    """
    first = block(name, rows)
    with path.open("wb") as file:
        if name == "csv":
            file.write(CSV_HEADER.encode())
        for number in range(blocks):
            day, hour = divmod(number, 24)
            later = first.replace(b"/Oct/2023:00:", b"/Oct/2023:%02d:" % hour) if number else first
            if day:
                later = later.replace(b"[10/Oct", b"[%d/Oct" % (10 + day))
            file.write(later.replace(_MARK.encode(), b"k%03d" % number))
    return path
